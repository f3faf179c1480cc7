"""Robust accuracy of a model that is a pair of functions of NumPy arrays: its logits, and the product of a cotangent
with their Jacobian. With JAX both come from the same function; without, they are written by hand here.
"""

import numpy as np
import sora_robust as sora

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(10, 3 * 16 * 16)).astype(np.float32)


def from_jax(network):
    """The two functions of `network`, a JAX function from images [n, c, h, w] to logits [n, k]."""
    import jax

    forward = jax.jit(network)
    back = jax.jit(lambda x, cotangent: jax.vjp(network, x)[1](cotangent)[0])
    return lambda x: np.asarray(forward(x)), lambda x, cotangent: np.asarray(back(x, cotangent))


def by_hand():
    """A linear model."""
    logits = lambda x: x.reshape(len(x), -1) @ WEIGHTS.T
    pull_back = lambda x, cotangent: (cotangent @ WEIGHTS).reshape(x.shape)
    return logits, pull_back


if __name__ == "__main__":
    try:
        import jax.numpy as jnp

        model = from_jax(lambda x: jnp.reshape(x, (len(x), -1)) @ WEIGHTS.T)
    except ImportError:
        model = by_hand()
    x = RNG.uniform(0.2, 0.8, (64, 3, 16, 16)).astype(np.float32)
    y = model[0](x).argmax(1)
    report = sora.evaluate(model, x, y, epsilon=1 / 255, suite="autoattack")
    print(report)
