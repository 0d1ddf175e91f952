// Pixels as training prepares them.

/** A copy of RGB pixels with a gray square around a point, as in Zeiler and Fergus (2013). */
export function cover(pixels, side, row, column, size) {
  const covered = pixels.slice();
  const [top, left] = [row, column].map((center) => Math.round(center - size / 2));
  for (let y = Math.max(top, 0); y < Math.min(top + size, side); y++) {
    covered.fill(128, 3 * (y * side + Math.max(left, 0)), 3 * (y * side + Math.min(left + size, side)));
  }
  return covered;
}

/** TensorFlow's antialiased triangle filter: for each output pixel, its first input pixel and the weights. */
function filter(from, to) {
  const step = from / to, width = Math.max(step, 1);
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * step;
    const first = Math.max(Math.ceil(center - width - 0.5), 0);
    const last = Math.min(Math.floor(center + width - 0.5), from - 1);
    const weights = [];
    for (let at = first; at <= last; at++) weights.push(Math.max(0, 1 - Math.abs(at + 0.5 - center) / width));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Resizes RGBA pixels to a square of RGB pixels, as training does. A canvas uses other filters. */
export function resize(pixels, width, height, to) {
  const horizontal = filter(width, to);
  const rows = new Float32Array(to * width * 3);
  filter(height, to).forEach(({ first, weights }, row) => {
    const output = rows.subarray(row * width * 3, (row + 1) * width * 3);
    weights.forEach((weight, tap) => {
      for (let column = 0, at = (first + tap) * width * 4, out = 0; column < width; column++, at++) {
        for (let channel = 0; channel < 3; channel++) output[out++] += weight * pixels[at++];
      }
    });
  });
  const result = new Uint8ClampedArray(to * to * 3); // rounds halves to even, as TensorFlow does
  for (let row = 0, out = 0; row < to; row++) {
    for (const { first, weights } of horizontal) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0, at = 3 * (row * width + first) + channel;
        for (const weight of weights) { sum += weight * rows[at]; at += 3; }
        result[out++] = sum;
      }
    }
  }
  return result;
}

/** Disables the EXIF data of a JPEG, for networks that were trained without `exif_orientation`. */
export function withoutOrientation(bytes) {
  for (let at = 2; bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[at] === 0xff && bytes[at + 1] !== 0xda; ) {
    if (bytes[at + 1] === 0xe1) bytes[at + 4] = 0;
    at += 2 + 256 * bytes[at + 2] + bytes[at + 3];
  }
  return bytes;
}

/** What distinguishes RGB pixels from nearly all training images, whose ranges are in page.json; "" if nothing does. */
export function describeDifferences(pixels, { crop_px: side, typical }) {
  if (!typical) return "";
  const measured = { color: 0, border: 0 };
  for (let at = 0; at < pixels.length; at += 3) {
    const [red, green, blue] = pixels.subarray(at, at + 3), row = Math.floor(at / 3 / side), column = (at / 3) % side;
    measured.color += (Math.max(red, green, blue) - Math.min(red, green, blue)) / side ** 2;
    const onBorder = row === 0 || column === 0 || row === side - 1 || column === side - 1;
    if (onBorder) measured.border += (red + green + blue) / 3 / (4 * side - 4);
  }
  const words = { color: ["it has less color", "it has more color"], border: ["its edges are darker", "its edges are brighter"] };
  return Object.entries(words).flatMap(([name, [less, more]]) => {
    const [low, high] = typical[name], tolerance = 8; // gray levels
    return measured[name] < low - tolerance ? [less] : measured[name] > high + tolerance ? [more] : [];
  }).join(", and ");
}
