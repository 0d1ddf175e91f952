// What is shown. Also `alexnet` in the browser's console.

export const state = {
  page: null, // page.json
  kernels: null, // kernels.bin, the bits of float16 values, Uint16Array
  strongest: null, // strongest.bin, Uint16Array
  pixels: null, // of the image, Uint8Array (crop_px, crop_px, 3)
  gates: [], // for each column, 1 or 0: switched off
  result: null, // the outputs of all layers and the probabilities by name, Float32Array
  resultGates: [], // the gates of that result
  halves: null, // probabilities of all columns, then of each column alone
  covered: null, // where the gray square is, {row, column}
  occlusion: null, // the occlusion map, Float32Array
  selected: null, // the map that is enlarged, {layer, map}
  unit: null, // which of its units is explained; null for the strongest
  held: false, // whether it stays selected while the pointer moves
  steps: [], // how the unit under the pointer gets its value, from steps.js
};
globalThis.alexnet = state;

export const COARSE = matchMedia("(pointer: coarse)").matches;
export const TOUCH = COARSE ? "Touch" : "Point at";

export const element = (id) => document.getElementById(id);

/** Makes an element with properties and children. */
export function make(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Shows an error, or none for null. */
export function showProblem(error) {
  element("problem").textContent = error ? String(error.message ?? error) : "";
  element("problem").hidden = !error;
}

const digits = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
/** A measured number with three digits, as everywhere on the page. */
export const number = (value) => (value === 0 ? "0" : digits.format(value).replace("-", "\u2212"));

export const percent = (p) => `${(100 * p).toFixed(1)}\u00a0%`;

/** The indices of the largest values, the largest first. */
export const largest = (values, count) => Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, count);

/** The side of the gray square, in pixels. */
export const occluderPx = () => Math.round(state.page.crop_px / 7);

/** Which of `count` equal cells of a length is at an offset. */
export const cellAt = (offset, length, count) => Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));
