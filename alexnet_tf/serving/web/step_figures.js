// The figures of steps.js: a convolution's input, kernel and products, a nonlinearity, neighbors, a pooling window.
import { pack, paint, ramp, signs } from "./colors.js";
import { element, make, number, state, TOUCH } from "./state.js";

const { abs, floor, max } = Math;
const largestIn = (values) => values.reduce((most, value) => max(most, abs(value)), 0) || 1;
const FUNCTIONS = { relu: (z) => max(0, z), tanh: Math.tanh };

/** Draws the figures of a unit's steps. */
export function drawSteps(steps) {
  const figures = { convolution: drawConvolution, activation: drawActivation, normalization: drawNormalization, pooling: drawPooling };
  element("steps").replaceChildren(...steps.flatMap((step) => figures[step.kind]?.(step) ?? figure(step.title, [], describe(step))));
  element("readout").textContent = steps[0].kind === "convolution" ? `${TOUCH} a square to see its numbers.` : "";
}

const describe = ({ kind, inputs, from, value }) => kind === "sum"
  ? `${inputs.toLocaleString("en")} products and the bias add up to ${number(value)}`
  : `${number(from)} becomes ${number(value)}`;

function figure(title, content, text) {
  const caption = make("figcaption", {}, [make("strong", { textContent: title }), make("br"), text]);
  return make("figure", { className: "step" }, [...content, caption]);
}

/** Draws the values of windows in a square, window by window: a canvas that says which value is under the pointer. */
function mosaic({ size, channels }, name, color, point) {
  const inColor = channels === 3, perRow = inColor ? 1 : Math.ceil(Math.sqrt(channels)), pitch = inColor ? size : size + 1;
  const side = perRow * pitch - (pitch - size), canvas = make("canvas", { width: side, height: side, className: "mosaic" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const locate = (x, y) => { // [channel, index in its window], or null
    const channel = floor(y / pitch) * perRow + floor(x / pitch);
    return channel < channels && x % pitch < size && y % pitch < size ? [channel, (y % pitch) * size + (x % pitch)] : null;
  };
  paint(canvas, (at) => {
    const found = locate(at % side, floor(at / side));
    return found ? color(...found) : 0;
  });
  canvas.onpointermove = canvas.onclick = ({ offsetX, offsetY }) => {
    const found = locate(floor((offsetX / canvas.clientWidth) * side), floor((offsetY / canvas.clientHeight) * side));
    if (found) point(...found);
  };
  return make("figure", {}, [canvas, make("figcaption", { textContent: name })]);
}

function drawConvolution(step) {
  const { title, inputs, kernel, products, bias, channels, firstMap, size, input, value } = step;
  const area = size ** 2, signed = signs(), inColor = channels === 3;
  const pixel = (values) => { // three channels are a color, gray at 0
    const most = largestIn(values);
    return (_, at) => pack(...[0, 1, 2].map((channel) => 127.5 * (1 + values[channel * area + at] / most)));
  };
  const perPixel = inColor ? products.subarray(0, area).map((first, at) => first + products[area + at] + products[2 * area + at]) : products;
  const [mostInput, mostWeight, mostProduct] = [inputs, kernel, perPixel].map(largestIn);
  const boxes = state.page.layers.find(({ steps }) => steps.some(({ output }) => output === input.output))?.boxes ?? 1;
  const ramps = Array.from({ length: boxes }, (_, box) => ramp(box));
  const point = (channel, at) => {
    const product = (index) => `${number(inputs[index])} × ${number(kernel[index])}`;
    const where = `row ${floor(at / size)}, column ${at % size}`;
    element("readout").textContent = inColor
      ? `${where}: red ${product(at)}, green ${product(area + at)}, blue ${product(2 * area + at)}; sum ${number(perPixel[at])}`
      : `map ${firstMap + channel}, ${where}: ${product(channel * area + at)} = ${number(products[channel * area + at])}`;
  };
  const draw = (name, color) => mosaic(step, name, color, point);
  const cell = (channel, at) => channel * area + at;
  const rampOf = (channel) => ramps[floor(((firstMap + channel) * boxes) / input.maps)];
  const below = inColor ? "the image less the mean image" : `${channels} maps of ${input.output}`;
  const parts = [
    draw("input", inColor ? pixel(inputs) : (channel, at) => rampOf(channel)[floor((255 * abs(inputs[cell(channel, at)])) / mostInput)]),
    "×",
    draw("kernel", inColor ? pixel(kernel) : (channel, at) => signed(kernel[cell(channel, at)] / mostWeight)),
    "=",
    draw("products", (channel, at) => signed(perPixel[inColor ? at : cell(channel, at)] / mostProduct)),
  ];
  return figure(`${title}: convolution`, [make("div", { className: "equation" }, parts)],
    `${size} × ${size} positions of ${below}: the ${products.length.toLocaleString("en")} products (orange above 0, blue below) ` +
    `add up to ${number(step.sum)}. With the bias ${number(bias)}: ${number(value)}`);
}

function drawActivation({ function: name, from, value, output, off }) {
  const f = FUNCTIONS[name], expression = name === "relu" ? `max(0, ${number(from)})` : `${name}(${number(from)})`;
  const silent = name === "relu" && from <= 0 ? " (silent)" : "";
  const text = off ? `column ${off} is off: 0` : `${expression} = ${number(value)}${silent}`;
  return figure(`${output}${f ? "" : `: ${name}`}`, f ? [plot(f, from)] : [], text);
}

/** The graph of a function around 0, with a point. */
function plot(f, z) {
  const range = max(abs(z), 1e-6), top = max(abs(f(range)), 1e-6), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const point = (x) => `${(50 * x) / range} ${(-40 * f(x)) / top}`, [x, y] = point(z).split(" ");
  const line = Array.from({ length: 41 }, (_, index) => point(range * (index / 20 - 1))).join("L");
  svg.setAttribute("viewBox", "-55 -46 110 92");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = `<path class="axes" d="M-55 0H55M0 -46V46"/><path d="M${line}"/><circle cx="${x}" cy="${y}" r="5"/>`;
  return svg;
}

function drawNormalization({ output, n, k, alpha, beta, neighbors, squares, from, map, value }) {
  const most = largestIn(neighbors.map((each) => each.value));
  const rows = neighbors.map((each) => {
    const bar = make("i");
    bar.style.width = `${(100 * abs(each.value)) / most}%`;
    const cells = [make("th", { textContent: each.map, scope: "row" }), make("td", {}, [bar]), make("td", { textContent: number(each.value) })];
    return make("tr", { className: each.map === map ? "own" : "" }, cells);
  });
  return figure(`${output}: normalization`, [make("table", { className: "neighbors" }, rows)],
    `${number(from)} / (${k} + ${alpha} × ${number(squares)})^${beta} = ${number(value)}, where ${number(squares)} is the sum of ` +
    `the squares in up to ${n} neighboring maps`);
}

function drawPooling({ output, size, values, value }) {
  const top = values.indexOf(value);
  const rows = Array.from({ length: size }, (_, row) => make("tr", {}, values.slice(row * size, (row + 1) * size).map((each, column) =>
    make("td", { className: row * size + column === top ? "own" : "", textContent: each === null ? "–" : number(each) }))));
  return figure(`${output}: max-pooling`, [make("table", { className: "window" }, rows)],
    `the largest of ${size} × ${size}: ${number(value)}`);
}
