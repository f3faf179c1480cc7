"""Adversarial training from Python, and the trained network in PyTorch.

    python train.py [DATASET] [EPOCHS]

DATASET is a name of `sora data list`, or folder:PATH with train/CLASS/*.png and test/CLASS/*.png.
"""

import sys

import numpy as np
import sora_robust as sora

if __name__ == "__main__":
    dataset = sys.argv[1] if len(sys.argv) > 1 else "synthetic"
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    small = {"model": "mnist-cnn", "width": 4, "image_size": 16, "limit_train": 400, "limit_test": 100, "val": 20}
    settings = small if dataset == "synthetic" else {}
    run = sora.train(dataset, method="sora", epsilon="8/255", epochs=epochs, batch=50, **settings)
    print(run.path, run.summary["method"], run.summary["steps"], "steps")

    # The network takes images of the size that it was trained on.
    side = settings.get("image_size", 32)
    x = np.random.default_rng(0).uniform(0, 1, (50, 3, side, side)).astype(np.float32)
    report = sora.evaluate(run, x, np.zeros(50, dtype=int), epsilon=8 / 255)
    print(report)
    try:
        print({name: tuple(value.shape) for name, value in list(run.state_dict().items())[:3]})
    except ImportError:
        print("state_dict() gives PyTorch's tensors, where safetensors and torch are installed")
