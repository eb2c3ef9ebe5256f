// The page: microphone and files to samples, the worker's results to what is seen.

const MAX_SECONDS = 120; // go through the network at once; the memory that takes grows with them
const MAX_MB = 200; // of a file, which is in memory as a whole
const SILENCE = 1e-3; // of full scale
const SPEECH_CONFIDENCE = 0.4; // what is less sure as a whole is noise or music more often than speech

const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
let model; // the worker's facts about it, once it is ready
let recorder; // while it records
let heard; // samples of what is recognised

/** What cannot be transcribed; the message is for whoever asked. */
class Refused extends Error {}

function say(status) {
  if ($("status").textContent !== status) $("status").textContent = status; // each change is read aloud
}

function show(error) {
  const known = error instanceof Refused;
  $("error").textContent = known ? error.message : `Something went wrong. · 出错了。 (${error.message})`;
  $("error").hidden = false;
  ready();
}

function ready() {
  say("");
  $("progress").hidden = true;
  $("record").disabled = $("file").disabled = false;
}

function busy(status) {
  say(status);
  $("error").hidden = $("result").hidden = true;
  $("progress").removeAttribute("value");
  $("progress").hidden = false;
  $("record").disabled = $("file").disabled = true;
}

worker.onmessage = ({ data }) => {
  if (data.type === "fetched") {
    $("progress").value = data.fetched / data.total;
    say(`Loading the model, ${(data.total / 1e6).toFixed(0)} MB … · 正在加载模型……`);
  } else if (data.type === "ready") {
    model = data;
    ready();
  } else if (data.type === "recognised") {
    draw(data.result, data.seconds);
    ready();
  } else if (data.type === "refused") {
    show(new Error(data.reason));
  } else {
    say("");
    $("progress").hidden = true;
    $("error").textContent = `The model cannot be loaded. · 无法加载模型。 (${data.reason})`;
    $("error").hidden = false;
  }
};
worker.onerror = (event) => worker.onmessage({ data: { type: "failed", reason: event.message ?? "worker.js" } });

$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) transcribe(file);
};

$("record").onclick = async () => {
  if (recorder) return recorder.stop();
  try {
    await record();
  } catch (error) {
    show(new Refused(`The microphone cannot be used. · 无法使用麦克风。 (${error.message})`));
  }
};

async function record() {
  // Browsers have this only where a page comes by HTTPS or from the machine itself.
  if (!navigator.mediaDevices) throw new Error("it needs https:// or localhost");
  $("record").disabled = $("file").disabled = true;
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const blocks = [];
  recorder = new MediaRecorder(stream, { audioBitsPerSecond: 128_000 });
  const limit = setTimeout(() => recorder.stop(), (MAX_SECONDS - 1) * 1000);
  recorder.ondataavailable = ({ data }) => blocks.push(data);
  recorder.onstop = () => {
    clearTimeout(limit);
    stream.getTracks().forEach((track) => track.stop());
    const { mimeType } = recorder;
    recorder = undefined;
    label("Record", "录音", false);
    transcribe(new Blob(blocks, { type: mimeType }));
  };
  recorder.start();
  $("record").disabled = false;
  $("error").hidden = $("result").hidden = true;
  label("Stop", "停止", true);
  say("Recording … · 正在录音……");
}

function label(english, chinese, recording) {
  $("record").replaceChildren(`${english} · `, element("span", { lang: "zh" }, chinese));
  $("record").classList.toggle("recording", recording);
}

async function transcribe(blob) {
  busy("Recognising … · 正在识别……");
  try {
    heard = await samplesOf(blob);
    URL.revokeObjectURL($("audio").src);
    $("audio").src = URL.createObjectURL(blob);
    worker.postMessage(heard);
  } catch (error) {
    show(error);
  }
}

/** Mono samples at the model's rate, to which the browser resamples. */
async function samplesOf(blob) {
  if (blob.size > MAX_MB * 1e6) {
    throw new Refused(`The file is larger than the limit of ${MAX_MB} MB. · 文件超过 ${MAX_MB} MB 的上限。`);
  }
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, model.rate).decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Refused("This file cannot be read as audio. · 无法读取音频。");
  }
  if (sound.duration > MAX_SECONDS) {
    const minutes = MAX_SECONDS / 60;
    throw new Refused(`The recording is longer than the limit of ${minutes} minutes. · 录音超过 ${minutes} 分钟的上限。`);
  }
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, i) => (samples[i] += value / sound.numberOfChannels));
  }
  if (samples.length < model.hop) throw new Refused("The recording is too short. · 录音太短。");
  if (!samples.some((value) => Math.abs(value) >= SILENCE)) {
    throw new Refused("The recording is silent: is the microphone on? · 没有声音，请检查麦克风。");
  }
  return samples;
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function draw(result, seconds) {
  const isSpeech = result.transcript && result.confidence >= SPEECH_CONFIDENCE;
  const none = "No speech was recognised: too much noise, or another language? · 没有识别到语音。";
  $("transcript").replaceChildren(...(isSpeech ? transcript(result) : [none]));
  $("tags").replaceChildren(...(isSpeech ? Object.entries(result.tags).map(tag) : []));
  $("letters").replaceChildren(...(isSpeech ? result.chunks.map(letter) : []));
  $("doubt").hidden = !$("tags").children.length;
  const duration = heard.length / model.rate;
  $("facts").textContent =
    `confidence 置信度 ${result.confidence.toFixed(2)} · ${duration.toFixed(1)} s · ${(seconds * 1000).toFixed(0)} ms · ` +
    `real-time factor 实时率 ${(seconds / duration).toFixed(3)} · threads 线程 ${model.threads}`;
  $("json").textContent = JSON.stringify(result, null, 2);
  $("result").hidden = false;
}

/** The transcript with its entities marked; of entities within each other the outer one. */
function transcript({ transcript: text, entities }) {
  const chars = [...text];
  const parts = [];
  let done = 0;
  for (const { type, start, end } of entities) {
    if (start < done) continue;
    const name = element("small", {}, type);
    const mark = element("mark", { "data-type": type }, chars.slice(start, end).join(""), name);
    mark.style.setProperty("--hue", ([...type].reduce((sum, char) => sum + char.codePointAt(0), 0) % 9) * 40);
    parts.push(chars.slice(done, start).join(""), mark);
    done = end;
  }
  return [...parts, chars.slice(done).join("")];
}

function tag([category, { label: value, score, head, text }]) {
  const short = (name) => (name ?? "–").replace(`${category}_`, "");
  const said = `${(score * 100).toFixed(0)}% · head ${short(head)} · text ${short(text)}`;
  const name = element("small", {}, category);
  return element("li", { "data-tag": category }, name, element("b", {}, short(value)), element("small", {}, said));
}

function letter({ text, timestamp: [start, end] }) {
  const made = element("button", { type: "button", "data-start": start, "data-end": end }, text);
  made.append(element("small", {}, `${start.toFixed(2)} s`));
  made.onclick = () => play(made, start, Math.max(end, start + 0.4));
  return element("li", {}, made);
}

function play(piece, start, end) {
  const audio = $("audio");
  for (const other of $("letters").querySelectorAll(".playing")) other.classList.remove("playing");
  piece.classList.add("playing");
  audio.currentTime = start;
  audio.ontimeupdate = () => {
    if (audio.currentTime < end) return;
    audio.pause();
    audio.ontimeupdate = null;
    piece.classList.remove("playing");
  };
  audio.play();
}
