// The graphs in onnxruntime-web. The page sends samples, and gets a result or the reason why there is none.

import * as ort from "./onnxruntime-web.js";
import { ResultBuilder } from "./result.js";

const MAX_THREADS = 4;

/** Fetch all that `files.json` lists, name -> bytes, and say how far that is. */
async function download() {
  const sizes = await (await answer("files.json")).json();
  const total = Object.values(sizes).reduce((sum, size) => sum + size);
  let fetched = 0;
  const contents = Object.keys(sizes).map(async (name) => {
    const content = new Uint8Array(sizes[name]);
    const reader = (await answer(name)).body.getReader();
    let length = 0;
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      if (length + read.value.length > content.length) throw new Error(`${name} is longer than files.json says`);
      content.set(read.value, length);
      length += read.value.length;
      fetched += read.value.length;
      postMessage({ type: "fetched", fetched, total });
    }
    if (length < content.length) throw new Error(`${name} is shorter than files.json says`);
    return [name, content];
  });
  return new Map(await Promise.all(contents));
}

async function answer(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status}`);
  return response;
}

class Recognizer {
  static async load() {
    const files = await download();
    const json = (name) => (files.has(name) ? JSON.parse(new TextDecoder().decode(files.get(name))) : null);
    const graph = (name) => (files.has(name) ? ort.InferenceSession.create(files.get(name)) : null);
    // Threads share memory, which browsers allow only to pages that are isolated from others.
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
    ort.env.wasm.wasmBinary = files.get("ort-wasm-simd-threaded.wasm");
    const recognizer = new Recognizer();
    recognizer.config = json("config.json");
    recognizer.results = new ResultBuilder(json("vocabulary.json"), recognizer.config, json("tag_classifier.json"));
    recognizer.frontEnd = await graph("frontend.onnx");
    recognizer.network = await graph("model.onnx");
    recognizer.tagHeads = await graph("tag_classifier.onnx");
    return recognizer;
  }

  /** What was said in float32 samples, as the package's recognisers say it. */
  async recognise(samples) {
    const [signal, frames] = await this.features(samples);
    const { logprobs, encoder_output: encoded } = await this.network.run({ audio_signal: signal, length: whole(frames) });
    const kept = Math.ceil(frames / this.config.subsampling_factor);
    const result = this.results.build(logprobs.data, kept, await this.tags(encoded, kept), samples.length);
    logprobs.dispose();
    encoded.dispose();
    return result;
  }

  /** Features (1, bins, frames), padded as the network wants them, and how many frames count. */
  async features(samples) {
    const waveform = new ort.Tensor("float32", samples, [1, samples.length]);
    const inputs = { waveform, waveform_length: whole(samples.length) };
    const [features, lengths] = Object.values(await this.frontEnd.run(inputs, this.frontEnd.outputNames));
    const [, bins, width] = features.dims;
    const frames = Number(lengths.data[0]);
    const multiple = Math.max(this.config.preprocessor.pad_to, 1);
    const padded = Math.ceil(frames / multiple) * multiple;
    const signal = new Float32Array(bins * padded);
    for (let bin = 0; bin < bins; bin++) {
      signal.set(features.data.subarray(bin * width, bin * width + frames), bin * padded);
    }
    return [new ort.Tensor("float32", signal, [1, bins, padded]), frames];
  }

  /** Logits of the tag heads for the mean of the encoder's output (1, channels, frames), a list for each category. */
  async tags(encoded, frames) {
    if (!this.tagHeads) return [];
    const [, channels, width] = encoded.dims;
    const pooled = Float32Array.from({ length: channels }, (_, channel) => {
      const row = encoded.data.subarray(channel * width, channel * width + frames);
      return row.reduce((sum, value) => sum + value, 0) / frames;
    });
    const outputs = await this.tagHeads.run({ pooled_encoder: new ort.Tensor("float32", pooled, [1, channels]) });
    return this.tagHeads.outputNames.map((name) => outputs[name].data);
  }
}

function whole(number) {
  return new ort.Tensor("int64", BigInt64Array.of(BigInt(number)), [1]);
}

const loading = Recognizer.load();
loading.then(
  ({ config }) => {
    const { sample_rate: rate, hop_length: hop } = config.preprocessor;
    postMessage({ type: "ready", rate, hop, threads: ort.env.wasm.numThreads });
  },
  (error) => postMessage({ type: "failed", reason: error.message }),
);

onmessage = async ({ data: samples }) => {
  try {
    const recognizer = await loading;
    const start = performance.now();
    const result = await recognizer.recognise(samples);
    postMessage({ type: "recognised", result, seconds: (performance.now() - start) / 1000 });
  } catch (error) {
    postMessage({ type: "refused", reason: error.message });
  }
};
