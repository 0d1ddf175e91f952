/** Packs a color into 32 bits, as canvases store it: an image needs millions of them. */
export const pack = (red, green, blue, alpha = 255) =>
  (Math.round(alpha) << 24) | (Math.round(blue) << 16) | (Math.round(green) << 8) | Math.round(red);

/** Paints a canvas whose pixel `at` has the packed color `color(at)`. */
export function paint(canvas, color) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const colors = new Int32Array(image.data.buffer);
  for (let at = 0; at < colors.length; at++) colors[at] = color(at);
  context.putImageData(image, 0, 0);
}

/** The color of a variable in the stylesheet: [red, green, blue]. */
export function ink(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** 256 packed colors, from the background to a column's strongest color. */
export function ramp(column) {
  const stops = ["--plate", `--mid-${1 + (column % 2)}`, `--top-${1 + (column % 2)}`].map(ink);
  return Array.from({ length: 256 }, (_, level) => {
    const position = (level / 255) * 2, at = Math.min(1, Math.floor(position));
    return pack(...stops[at].map((from, channel) => from + (position - at) * (stops[at + 1][channel] - from)));
  });
}

/** A function from a number from -1 to 1 to a packed color: orange above 0, blue below, the background at 0. */
export function signs() {
  const plate = ink("--plate"), [above, below] = ["--bar-2", "--bar-1"].map(ink);
  return (value) => {
    const toward = value < 0 ? below : above;
    return pack(...plate.map((from, channel) => from + Math.abs(value) * (toward[channel] - from)));
  };
}
