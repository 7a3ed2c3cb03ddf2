"""ATen operations that are no more than a C text."""

COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
"""Their operands are compared in their common type; the result is a bool."""

POINTWISE = {
    "add": "{self} + {alpha} * {other}",
    "sub": "{self} - {alpha} * {other}",
    "rsub": "{other} - {alpha} * {self}",
    "mul": "{self} * {other}",
    "div": "{self} / {other}",
    "neg": "-{self}",
    "abs": "({self} < 0 ? -{self} : {self})",
    "reciprocal": "1 / {self}",
    "square": "{self} * {self}",
    "sqrt": "SQRT({self})",
    "rsqrt": "1 / SQRT({self})",
    "exp": "FN_exp({self})",
    "expm1": "FN_expm1({self})",
    "log": "FN_log({self})",
    "log1p": "FN_log1p({self})",
    "tanh": "FN_tanh({self})",
    "sigmoid": "FN_sigmoid({self})",
    "sin": "LIB_sin({self})",
    "cos": "LIB_cos({self})",
    "tan": "LIB_tan({self})",
    "atan": "LIB_atan({self})",
    "atan2": "LIB_atan2({self}, {other})",
    "erf": "LIB_erf({self})",
    "lgamma": "LIB_lgamma({self})",
    "floor": "LIB_floor({self})",
    "ceil": "LIB_ceil({self})",
    "round": "LIB_rint({self})",
    "trunc": "LIB_trunc({self})",
    "fmod": "LIB_fmod({self}, {other})",
    # the sign of the divisor, as in Python
    "remainder": "({self} - {other} * LIB_floor({self} / {other}))",
    "sign": "(TT)(({self} > 0) - ({self} < 0))",
    "relu": "({self} < 0 ? (TT)0 : {self})",
    "leaky_relu": "({self} > 0 ? {self} : {self} * {negative_slope})",
    "elu": "({self} > 0 ? {self} * {scale} : FN_expm1({self} * {input_scale}) * {alpha} * {scale})",
    "silu": "{self} * FN_sigmoid({self})",
    "softplus": "({self} * {beta} > {threshold} ? {self} : FN_log1p(FN_exp({self} * {beta})) / {beta})",
    "clamp_min": "({self} < {min} ? {min} : {self})",
    "clamp_max": "({self} > {max} ? {max} : {self})",
    "minimum": "({self} < {other} || {self} != {self} ? {self} : {other})",
    "maximum": "({self} > {other} || {self} != {self} ? {self} : {other})",
    "lerp": "({weight} < (TT)0.5 ? {self} + {weight} * ({end} - {self}) : {end} - ({end} - {self}) * (1 - {weight}))",
    "addcmul": "{self} + {value} * {tensor1} * {tensor2}",
    "addcdiv": "{self} + {value} * {tensor1} / {tensor2}",
    "where": "({condition} ? {self} : {other})",
    "masked_fill": "({mask} ? {value} : {self})",
    "copy": "{src}",
    "clone": "{self}",
    "_to_copy": "{self}",
    "contiguous": "{self}",
    "lift_fresh_copy": "{self}",
    "fill": "{value}",
    "zero": "0",
    "zeros": "0",
    "zeros_like": "0",
    "new_zeros": "0",
    "ones": "1",
    "ones_like": "1",
    "new_ones": "1",
    "full": "{fill_value}",
    "full_like": "{fill_value}",
    "new_full": "{fill_value}",
    "scalar_tensor": "{s}",
    "logical_not": "!{self}",
    "logical_and": "({self} && {other})",
    "logical_or": "({self} || {other})",
    "logical_xor": "({self} != {other})",
    "bitwise_and": "({self} & {other})",
    "bitwise_or": "({self} | {other})",
    "bitwise_xor": "({self} ^ {other})",
    "tanh_backward": "{grad_output} * (1 - {output} * {output})",
    "sigmoid_backward": "{grad_output} * (1 - {output}) * {output}",
    "threshold_backward": "({self} <= {threshold} ? (TT)0 : {grad_output})",
    "leaky_relu_backward": "({self} > 0 ? {grad_output} : {grad_output} * {negative_slope})",
    "silu_backward": "{grad_output} * FN_sigmoid({self}) * (1 + {self} * (1 - FN_sigmoid({self})))",
    "softplus_backward": (
        "({self} * {beta} > {threshold} ? {grad_output} : {grad_output} * FN_sigmoid({self} * {beta}))"
    ),
}
"""By their names without overload, with the operands under the names of the schema. TT is the type that is computed in,
FN_, LIB_ and SQRT are functions for it: of the prelude, or of the C library."""

REDUCE = {
    "sum": ("0", "{acc} + {x}"),
    "amax": ("{x}", "({x} > {acc} || {x} != {x} ? {x} : {acc})"),
    "amin": ("{x}", "({x} < {acc} || {x} != {x} ? {x} : {acc})"),
    "any": ("0", "({acc} || {x})"),
    "all": ("1", "({acc} && {x})"),
}
"""Operations over dimensions: what the result starts from, and how an element is added to it."""

_D, _SIZE = "({self} - {target})", "LIB_fabs({self} - {target})"
LOSSES = {
    "mse_loss": f"{_D} * {_D}",
    "mse_loss_backward": f"2 * {_D}",
    "smooth_l1_loss": (f"({_SIZE} < {{beta}} ? (TT)0.5 * {_SIZE} * {_SIZE} / {{beta}} : {_SIZE} - (TT)0.5 * {{beta}})"),
    "smooth_l1_loss_backward": f"({_D} <= -{{beta}} ? (TT)-1 : {_D} >= {{beta}} ? (TT)1 : {_D} / {{beta}})",
    "huber_loss": (
        f"({_SIZE} < {{delta}} ? (TT)0.5 * {_SIZE} * {_SIZE} : {{delta}} * ({_SIZE} - (TT)0.5 * {{delta}}))"
    ),
    "huber_loss_backward": f"({_D} <= -{{delta}} ? -{{delta}} : {_D} >= {{delta}} ? {{delta}} : {_D})",
}
"""The loss of an element, and its derivative."""
