"""Fonts of this machine that have the characters of a text, for class names in any script."""

import functools

from absl import logging
from matplotlib import font_manager


def font_files(text: str) -> list[str]:
    """Finds fonts that together have the characters of a text.

    Warns, once for the same characters, if this machine has no font for some, and names the packages that have one.

    Returns: the paths of Matplotlib's usual font and of further ones, none if that suffices.
    """
    usual = font_manager.findfont(font_manager.FontProperties())
    missing = set(filter(str.isprintable, text)).difference(map(chr, font_manager.get_font(usual).get_charmap()))
    return [usual, *_files_with(frozenset(missing))]


@functools.cache
def _files_with(characters: frozenset[str]) -> tuple[str, ...]:
    files, missing = [], set(characters)
    # The files themselves: Matplotlib's own list may be older than a font that was installed since.
    paths = font_manager.findSystemFonts() if missing else []
    for path in sorted(paths, key=lambda path: ("Regular" not in path, path)):
        try:
            font = font_manager.get_font(path)
        except (OSError, RuntimeError):
            continue  # not a font that Matplotlib can read
        found = missing.intersection(map(chr, font.get_charmap()))
        # Fonts of bitmaps, such as those of emojis, can't be drawn in any size; the "last resort" consists of boxes.
        if found and font.scalable and "LastResort" not in path:
            files.append(path)
            missing -= found
    if missing:
        logging.warning(
            "This machine has no font for %s: pictures show boxes instead. The package fonts-noto-cjk has Chinese, "
            "Japanese and Korean, fonts-noto-core most other scripts.",
            "".join(sorted(missing)[:20]),
        )
    return tuple(files)
