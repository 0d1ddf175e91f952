// How a unit gets its value, step by step, from the tensors that the network computed for this image.
import { drawSteps } from "./step_figures.js";
import { state } from "./state.js";

const { floor, max, min } = Math;
const sum = (values) => values.reduce((a, b) => a + b, 0);
const valueAt = ({ output, side }, map, { row, column }) => state.result[output][(map * side + row) * side + column];

/** The number with these 16 bits. Not all browsers have Float16Array. */
function fromFloat16(bits) {
  const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

/** The positions that a unit of a convolution or pooling reads, row by row; null outside the maps. */
function windowOf({ size, step, start }, position, side) {
  return Array.from({ length: size ** 2 }, (_, at) => {
    const row = position.row * step + start + floor(at / size), column = position.column * step + start + (at % size);
    return min(row, column) >= 0 && max(row, column) < side ? { row, column } : null;
  });
}

function convolution(step, layer, map, position) {
  const { channels, offset } = layer.kernel, { input, size } = step, length = channels * size ** 2;
  const at = offset + map * (length + 1); // the bias follows the kernel
  const weights = Float32Array.from(state.kernels.subarray(at, at + length + 1), fromFloat16);
  const kernel = weights.subarray(0, length), bias = weights[length];
  // A kernel sees the maps of its own column or those of all columns.
  const firstMap = channels < input.maps ? floor(map / layer.perBox) * channels : 0;
  const scale = layer.joins_columns ? state.page.columns / max(1, sum(state.resultGates)) : 1;
  const positions = windowOf(step, position, input.side);
  const inputs = Float32Array.from({ length }, (_, index) => {
    const where = positions[index % size ** 2];
    return where ? scale * valueAt(input, firstMap + floor(index / size ** 2), where) : 0;
  });
  const products = inputs.map((value, index) => value * kernel[index]);
  return { inputs, kernel, products, bias, channels, firstMap, sum: sum(products) };
}

function normalization({ n, k, alpha, beta, neighborhood }, before, map, position) {
  const first = floor(map / neighborhood) * neighborhood, last = first + neighborhood - 1, reach = floor(n / 2);
  const maps = Array.from({ length: n }, (_, index) => map - reach + index).filter((each) => each >= first && each <= last);
  const neighbors = maps.map((each) => ({ map: each, value: valueAt(before, each, position) }));
  const squares = sum(neighbors.map(({ value }) => value ** 2));
  return { neighbors, squares, divisor: (k + alpha * squares) ** beta };
}

function pooling(step, before, map, position) {
  const positions = windowOf(step, position, before.side);
  const values = positions.map((where) => (where ? valueAt(before, map, where) : null));
  const largest = max(...values.filter((value) => value !== null));
  return { values, where: positions[values.indexOf(largest)] };
}

/**
 * The unit's position in the output of each step: from the activations down to the kernel, through a pooling to its
 * largest input, and up to the next kernel, through a pooling to the first window with the unit.
 */
function follow(layer, map, unit) {
  const { steps } = layer, here = steps.findIndex(({ output }) => output === layer.output), positions = [];
  positions[here] = { row: floor(unit / layer.side), column: unit % layer.side };
  for (let i = here; i > 0; i--) {
    positions[i - 1] = steps[i].kind === "pooling" ? pooling(steps[i], steps[i - 1], map, positions[i]).where : positions[i];
  }
  for (let i = here + 1; i < steps.length; i++) {
    const { kind, size, step, start, side } = steps[i];
    const inWindow = (at) => min(side - 1, max(0, Math.ceil((at - start - size + 1) / step)));
    const { row, column } = positions[i - 1];
    positions[i] = kind === "pooling" ? { row: inWindow(row), column: inWindow(column) } : positions[i - 1];
  }
  return positions;
}

/** Shows how a unit of a map gets its value. The numbers stay in `alexnet.steps`. */
export function showSteps(layer, map, unit) {
  const positions = follow(layer, map, unit), box = floor(map / layer.perBox);
  state.steps = layer.steps.map((step, i) => {
    const position = positions[i], before = layer.steps[i - 1];
    const common = { ...step, map, position, value: valueAt(step, map, position) };
    if (before) common.from = valueAt(before, map, positions[i - 1]);
    switch (step.kind) {
      case "convolution": return { ...common, ...convolution(step, layer, map, position) };
      case "normalization": return { ...common, ...normalization(step, before, map, position) };
      case "pooling": return { ...common, ...pooling(step, before, map, position) };
      case "activation": return { ...common, off: layer.boxes > 1 && !state.resultGates[box] && box + 1 };
      default: return common;
    }
  });
  drawSteps(state.steps);
}
