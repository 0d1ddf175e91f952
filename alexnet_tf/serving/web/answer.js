// The answer: the most probable classes, and what each column alone would say.
import { element, largest, make, percent, state } from "./state.js";

/** Shows the five most probable classes, with bars for all columns and for each column alone. */
export function renderAnswer(gates) {
  const { page, result: { probabilities } } = state, halves = state.covered ? null : state.halves;
  element("top").replaceChildren(...largest(probabilities, 5).map((label) => {
    const bars = make("div", { className: "bars" });
    for (const each of [probabilities, ...(halves ?? []).slice(1)]) {
      const bar = make("i");
      bar.style.width = `${100 * each[label]}%`;
      bars.append(bar);
    }
    const texts = [make("span", { textContent: page.classes[label] }), make("b", { textContent: percent(probabilities[label]) })];
    return make("li", {}, [...texts, bars]);
  }));
  const on = gates.flatMap((gate, column) => (gate ? [column + 1] : []));
  const some = on.length ? `Column ${on.join(", ")} alone: ` : "With every column off, only the classifier's biases: ";
  const who = on.length === page.columns ? "" : some;
  const [first] = largest(probabilities, 1), answer = `${who}${page.classes[first]}, ${percent(probabilities[first])}`;
  element("status").textContent = state.covered ? "A spot is covered." : answer;
  element("status").classList.toggle("quiet", !who && !state.covered); // the list shows it
  element("halves").hidden = !halves;
  if (halves) {
    element("knows").replaceChildren(...halves.flatMap((each, index) => {
      const term = make("dt", { textContent: index ? `Column ${index} alone` : "Both columns" }), [top] = largest(each, 1);
      if (index) term.style.setProperty("--key", `var(--bar-${index})`);
      return [term, make("dd", { textContent: `${page.classes[top]}, ${percent(each[top])}` })];
    }));
  }
}
