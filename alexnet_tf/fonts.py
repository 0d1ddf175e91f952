"""Installed fonts with the characters of a text, for class names in any script."""

import functools

from absl import logging
from matplotlib import font_manager


def font_files(text: str) -> list[str]:
    """Finds fonts that together have the characters of a text.

    If no installed font has some characters, a warning names packages of fonts, once for the same characters.

    Returns: the paths of Matplotlib's default font and of further fonts, if they are needed.
    """
    usual = font_manager.findfont(font_manager.FontProperties())
    missing = set(filter(str.isprintable, text)).difference(map(chr, font_manager.get_font(usual).get_charmap()))
    return [usual, *_files_with(frozenset(missing))]


@functools.cache
def _files_with(characters: frozenset[str]) -> tuple[str, ...]:
    files, missing = [], set(characters)
    # The files themselves, because Matplotlib's list may be older than a font.
    paths = font_manager.findSystemFonts() if missing else []
    for path in sorted(paths, key=lambda path: ("Regular" not in path, path)):
        try:
            font = font_manager.get_font(path)
        except (OSError, RuntimeError):
            continue  # not a font that Matplotlib can read
        found = missing.intersection(map(chr, font.get_charmap()))
        # Bitmap fonts, such as those of emojis, have one size; the "last resort" font consists of boxes.
        if found and font.scalable and "LastResort" not in path:
            files.append(path)
            missing -= found
    if missing:
        logging.warning(
            "No installed font has %s: pictures show boxes instead. Install fonts-noto-cjk for Chinese, Japanese and "
            "Korean, and fonts-noto-core for most other scripts.",
            "".join(sorted(missing)[:20]),
        )
    return tuple(files)
