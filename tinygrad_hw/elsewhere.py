"""What other libraries call what is here, or done without: errors of missing names say it."""

TENSORS = {
    "Parameter": "tg.Tensor(x, requires_grad=True)",
    "as_tensor": "tg.Tensor",
    "bmm": "tg.matmul",
    "cat": "tg.concatenate",
    "clamp": "tg.clip",
    "cross_entropy": "tg.softmax_cross_entropy",
    "from_numpy": "tg.Tensor",
    "functional_call": "tg.nn.functional_call",
    "gather": "tg.take_along_axis",
    "jit": "tg.compile",
    "logdet": "tg.slogdet(t)[1]",
    "manual_seed": "rng= of layers and initialisers",
    "masked_fill": "tg.where(mask, value, t)",
    "mm": "tg.matmul",
    "permute": "tg.transpose",
    "solve_triangular": "tg.solve",
    "unsqueeze": "tg.expand_dims",
    "vmap": "leading axes, which ops take",
}
LAYERS = {
    "BCEWithLogitsLoss": "tg.binary_cross_entropy_with_logits",
    "BatchNorm1d": "tg.nn.BatchNorm",
    "BatchNorm2d": "tg.nn.BatchNorm",
    "ConvTranspose2d": "tg.conv2d_transpose",
    "CrossEntropyLoss": "tg.softmax_cross_entropy",
    "Dense": "tg.nn.Linear",
    "Identity": "lambda x: x",
    "LogSoftmax": "tg.log_softmax",
    "MSELoss": "tg.mse_loss",
    "ModuleDict": "a dict of modules as an attribute",
    "ModuleList": "a list of modules as an attribute",
    "Parameter": "tg.Tensor(x, requires_grad=True)",
    "ParameterDict": "a dict of tensors as an attribute",
    "ParameterList": "a list of tensors as an attribute",
    "functional": "tg",
    "utils": "tg.optim.clip_grad_norm for the norm of gradients",
}
OPTIMIZERS = {
    "CosineAnnealingLR": "tg.optim.Cosine",
    "OneCycleLR": "tg.optim.OneCycle",
    "StepLR": "tg.optim.StepDecay",
    "clip_grad_norm_": "tg.optim.clip_grad_norm",
    "clip_grad_value_": "p.grad = np.clip(p.grad, -c, c)",
    "lr_scheduler": "the schedules of tg.optim, such as tg.optim.Cosine",
}


def missing(module: str, name: str, instead: str | None) -> AttributeError:
    """Make the error of a name that a module lacks."""
    advice = f"; use {instead}" if instead else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{advice}")
