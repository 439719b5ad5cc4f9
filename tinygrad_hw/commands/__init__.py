"""The subcommands of ``tinygrad-hw``: each module has ``configure(parser)`` and ``run(options)``."""
