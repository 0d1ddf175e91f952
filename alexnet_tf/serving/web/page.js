// The page: loads the network, and fills in what is known before.
import { ask, compute } from "./compute.js";
import { download } from "./download.js";
import { listen, NOTE, open, stopOcclusion } from "./input.js";
import { build } from "./network.js";
import { COARSE, element, make, showProblem, state } from "./state.js";

async function start() {
  addEventListener("unhandledrejection", (event) => showProblem(event.reason));
  element("progress").hidden = false;
  element("step").textContent = "Loading the network …";
  try {
    const page = JSON.parse(new TextDecoder().decode(await download({ url: "page.json", cache: "no-store" })));
    state.page = page;
    describe(page);
    build(() => { stopOcclusion(); compute(); });
    element("step").textContent = `Loading the network, ${Math.round(page.model_bytes / 1e6)} MB …`;
    [, state.kernels, state.strongest] = await Promise.all([
      ask("load", { page }, (done) => (element("progress").value = done)),
      download({ url: "kernels.bin" }).then((bytes) => new Uint16Array(bytes)),
      page.data && download({ url: "strongest.bin" }).then((bytes) => new Uint16Array(bytes)),
    ]);
  } catch (error) {
    return showProblem(error);
  } finally {
    element("loading").hidden = true;
  }
  listen();
  if (state.page.examples.length) await openExample(state.page.examples[0]);
}

const openExample = async ({ url, title }) => open(new Blob([await download({ url })]), title);

/** Fills in what is known before the network is loaded. */
function describe(page) {
  const source = page.data;
  if (!COARSE) element("about").append(" Click one to hold it.");
  element("source").textContent = source ? `Examples and training images: ${source.source}. ` : "";
  if (source?.license) element("source").append(make("a", { href: source.license, textContent: "License" }));
  const shown = page.classes.slice(0, 10).join(", ") + (page.classes.length > 10 ? ", …" : "");
  element("trained").textContent = `Trained on ${page.classes.length.toLocaleString("en")} classes` +
    `${source ? ` of ${source.source}` : ""}: ${shown}. It assigns one of them to every image.`;
  const joining = page.layers.filter((layer) => layer.joins_columns).map(({ name }) => name);
  element("doubled").textContent = `Alone, a column's inputs to ${joining.join(", ")} are multiplied by ` +
    `${page.columns}, in place of the missing ones.`;
  element("note").textContent = NOTE;
  element("model").textContent = `AlexNet (Krizhevsky, Sutskever and Hinton, 2012), ${page.title}: ` +
    `${page.parameters.toLocaleString("en")} parameters, ${page.classes.length.toLocaleString("en")} classes. ` +
    (source ? `The strongest images are from ${source.searched.toLocaleString("en")} training images.` : "");
  element("offline").textContent = page.runtime.every(({ url }) => !url.includes("://"))
    ? "The page works offline." : `Its runtime, onnxruntime-web, is loaded from ${new URL(page.runtime[0].url).host}.`;
  page.examples.forEach((example) => {
    const { title } = example, image = make("img", { src: example.url, alt: title });
    element("examples").append(make("button", { type: "button", title, onclick: () => openExample(example) }, [image]));
  });
  for (const id of ["image", "heat"]) Object.assign(element(id), { width: page.crop_px, height: page.crop_px });
  element("image").setAttribute("aria-label", `The network's ${page.crop_px} by ${page.crop_px} pixels. ` +
    "Arrow keys move a gray square over them, Escape removes it.");
}

start();
