"""The subcommands of ``tinygrad-hw``: modules with ``configure(parser)`` and ``run(options)``."""
