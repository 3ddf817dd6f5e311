"""Train a small convolutional network on scikit-learn's handwritten digits (8x8 pixels, in the package, no download).

Run: python examples/train_digits.py [DIRECTORY]

Takes seconds on a processor. Writes digits.keras, digits.labels.txt, and digits.npz with the 450 pictures that it was
not trained on and their classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pipeline.tensorflow_runtime import keras

Array = npt.NDArray[Any]
L = keras.layers
EPOCHS = 6
BRIGHTEST = 16.0


def main() -> None:
    """Train, tell the accuracy, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path())
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    model, pictures, classes = train()
    accuracy = float((model.predict(pictures, verbose=0).argmax(axis=-1) == classes).mean())
    model.save(directory / "digits.keras")
    (directory / "digits.labels.txt").write_text("\n".join(map(str, range(10))) + "\n", encoding="utf-8")
    np.savez_compressed(directory / "digits.npz", pictures=pictures, classes=classes)
    print(f"accuracy {accuracy:.4f} on {len(classes)} pictures it has not seen; see {directory / 'digits.keras'}")


def train(seed: int = 0) -> tuple[Any, Array, Array]:
    """The trained model; pictures, uint8 from 0 to 255 of (8, 8, 1), and classes that it has not seen."""
    digits = load_digits()
    pictures = (digits.images[..., None] * (255.0 / BRIGHTEST)).round().astype(np.uint8)
    known, unseen, classes, answers = train_test_split(
        pictures, digits.target, test_size=450, random_state=seed, stratify=digits.target
    )
    keras.utils.set_random_seed(seed)
    model = network()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(known, classes, batch_size=64, epochs=EPOCHS, verbose=0)
    return model, unseen, answers


def network() -> Any:
    """Two residual blocks over 8x8 maps, about 20,000 parameters; pixels go in as bytes."""
    image = keras.Input((8, 8, 1), dtype="uint8", name="picture")
    x = L.Rescaling(1 / 255, name="unit")(image)
    x = _conv(x, 24, "stem")
    for number in (1, 2):
        y = _conv(x, 24, f"block{number}_1")
        y = L.BatchNormalization(momentum=0.8, name=f"block{number}_2_bn")(
            L.Conv2D(24, 3, padding="same", use_bias=False)(y)
        )
        x = L.ReLU(name=f"block{number}_relu")(L.Add(name=f"block{number}_add")([x, y]))
    x = L.GlobalAveragePooling2D(name="mean")(L.MaxPooling2D(name="pool")(x))
    return keras.Model(image, L.Dense(10, activation="softmax", name="digit")(x), name="digits")


def _conv(x: Any, filters: int, name: str) -> Any:
    x = L.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return L.ReLU(name=f"{name}_relu")(L.BatchNormalization(momentum=0.8, name=f"{name}_bn")(x))


if __name__ == "__main__":
    main()
