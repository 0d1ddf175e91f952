"""Synthetic photographs: noise with the spectrum of natural images, 500 x 375 pixels."""

import io

import numpy as np
from PIL import Image


def make_photo(seed):
    """Makes a JPEG whose amplitudes fall as 1/f, with edges. It has about as many bytes as a photograph."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None])
    spectrum = random.normal(size=(3, *frequency.shape, 2)) @ [1, 1j] / np.maximum(frequency, 1 / 500)
    spectrum[1:] = 0.8 * spectrum[0] + 0.2 * spectrum[1:]  # the three colors are correlated
    waves = np.fft.irfft2(spectrum, s=(375, 500))
    waves = np.where(waves > 0, waves, 0.3 * waves) / waves.std() * 60 + 110
    buffer = io.BytesIO()
    Image.fromarray(np.clip(waves, 0, 255).astype("uint8").transpose(1, 2, 0)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def write_photos(folder, count):
    """Writes photographs of two classes, "a" and "b"; returns their paths."""
    paths = [folder / "ab"[number % 2] / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_photo(number))
    return paths
