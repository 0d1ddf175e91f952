// Asks every signature of an exported model from Node, through TensorFlow's C library: node served_by_node.js MODEL INPUTS
//
// INPUTS is a JSON file: {"images": [base64, ...], "examples": [base64, ...], "pixels": numbers, "shape": [n, side, side, 3]}.
// Prints a JSON object from each signature to its outputs.
const fs = require('fs');
const tf = require('@tensorflow/tfjs-node');

async function main() {
  const [folder, file] = process.argv.slice(2);
  const given = JSON.parse(fs.readFileSync(file));
  const strings = (encoded) => tf.tensor(encoded.map((each) => new Uint8Array(Buffer.from(each, 'base64'))), [encoded.length], 'string');
  const inputs = {
    serving_default: () => ({images: strings(given.images)}),
    ten_view: () => ({images: strings(given.images)}),
    features: () => ({images: strings(given.images)}),
    classify: () => ({inputs: strings(given.examples)}),
    predict: () => ({pixels: tf.tensor(given.pixels, given.shape, 'float32')}),
    predict_uint8: () => ({pixels: tf.tensor(given.pixels, given.shape, 'int32')}),
  };
  const answers = {};
  for (const [signature, make] of Object.entries(inputs)) {
    const model = await tf.node.loadSavedModel(folder, ['serve'], signature);
    const outputs = model.predict(make());
    answers[signature] = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      answers[signature][name] = {shape: tensor.shape, values: Array.from(await tensor.data())};
    }
    model.dispose();
  }
  console.log(JSON.stringify(answers));
}

main();
