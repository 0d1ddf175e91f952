// Runs the network in the worker, and shows what it computes.
import { renderAnswer } from "./answer.js";
import { pack, paint } from "./colors.js";
import { renderMaps } from "./network.js";
import { cover } from "./pixels.js";
import { element, occluderPx, showProblem, state } from "./state.js";

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let last = 0;
worker.onerror = (event) => showProblem(`The network's worker failed: ${event.message ?? "it could not start"}`);
worker.onmessage = ({ data }) => {
  const { resolve, reject, report } = waiting.get(data.id);
  if ("progress" in data) return report(data.progress);
  waiting.delete(data.id);
  return data.error ? reject(new Error(data.error)) : resolve(data.result);
};

/** Gives the worker a task. Resolves to its result. */
export const ask = (task, message = {}, report = null) => new Promise((resolve, reject) => {
  waiting.set(++last, { resolve, reject, report });
  worker.postMessage({ task, id: last, ...message });
});

let wanted = false, computing = null;
/** Runs the network on the image as it is now. Of the calls during a run, only the last one starts another. */
export function compute() {
  wanted = true;
  computing ??= (async () => {
    try {
      while (wanted && state.pixels) {
        wanted = false;
        const { pixels, covered } = state, gates = [...state.gates];
        const shown = covered ? cover(pixels, state.page.crop_px, covered.row, covered.column, occluderPx()) : pixels;
        paint(element("image"), (at) => pack(shown[3 * at], shown[3 * at + 1], shown[3 * at + 2]));
        state.result = await ask("run", { pixels: shown, gates, all: true });
        render(gates);
        if (!covered && !state.halves && state.page.columns > 1 && !wanted) {
          const halves = await computeHalves(pixels);
          if (state.pixels === pixels) { state.halves = halves; renderAnswer(gates); }
        }
      }
    } finally { computing = null; }
  })();
  return computing;
}

/** The probabilities of all columns, then of each column alone. */
async function computeHalves(pixels) {
  const halves = [];
  for (let which = -1; which < state.page.columns; which++) {
    const gates = state.gates.map((_, column) => Number(which < 0 || column === which));
    halves.push((await ask("run", { pixels, gates })).probabilities);
  }
  return halves;
}

export function render(gates) {
  state.resultGates = gates;
  renderAnswer(gates);
  renderMaps(gates);
  element("occlusion").disabled = false;
}
