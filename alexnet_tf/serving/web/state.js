// What is shown. Also `alexnet` in the browser's console.

export const state = {
  page: null, // page.json
  kernels: null, // kernels.bin, Int8Array
  strongest: null, // strongest.bin, Uint16Array
  pixels: null, // of the image, Uint8Array (crop_px, crop_px, 3)
  gates: [], // for each column, 1 or 0: switched off
  result: null, // the network's outputs by name
  halves: null, // probabilities of all columns, then of each column alone
  covered: null, // where the gray square is, {row, column}
  occlusion: null, // the occlusion map, Float32Array
  selected: null, // the map that is enlarged, {layer, map}
};
globalThis.alexnet = state;

export const element = (id) => document.getElementById(id);

/** Makes an element with properties and children. */
export function make(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const percent = (p) => `${(100 * p).toFixed(1)}\u00a0%`;

/** The indices of the largest values, the largest first. */
export const largest = (values, count) => Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, count);

/** The side of the gray square, in pixels. */
export const occluderPx = () => Math.round(state.page.crop_px / 7);
