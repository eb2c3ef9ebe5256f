// From log-probabilities to text, transcript, entities, tags, times and confidence: what `decoding_citrinet.py`,
// `transcript_citrinet.py` and `result_citrinet.py` of the package do for one segment, with greedy decoding.
// Texts are lists of characters (code points), so that places in them are counted as in Python.

const WORD_BOUNDARY = "▁";
const ENTITY_PREFIX = "ENTITY_";
const MARKER_PIECE = String.raw`[A-Z][A-Z0-9]*(?:_[A-Z0-9<>+\-]+)+|END`;
const IS_MARKER_PIECE = new RegExp(`^(?:${MARKER_PIECE})$`);
const MARKER_IN_TEXT =
  "(?:(?<![A-Za-z0-9_])|(?<=(?<![A-Za-z0-9_])END))" +
  `(?:END(?=${ENTITY_PREFIX})|(?:${MARKER_PIECE})(?![A-Za-z0-9_]))`;
const UNSPACED =
  /[\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef\u{20000}-\u{3ffff}]/u;
const NO_PUNCTUATION = /^(?:▁|##|<.*>$|\[.*\]$|\s*$)/u;
const isSpace = (char) => /\s/u.test(char);

/** Takes the files of an ONNX export: vocabulary.json, config.json, and tag_classifier.json or null without heads. */
export class ResultBuilder {
  constructor(vocabulary, config, classifier) {
    const { sample_rate: rate, hop_length: hop } = config.preprocessor;
    this.rate = rate;
    this.frameSeconds = (hop / rate) * config.subsampling_factor;
    this.temperature = config.confidence_temperature ?? 1;
    this.pieces = vocabulary.vocabulary;
    this.blank = vocabulary.blank_id;
    this.unknown = vocabulary.unknown_id;
    this.leadingBoundaries = vocabulary.leading_boundaries;
    this.punctuation = punctuationMarks(this.pieces);
    this.markerNames = markerNames(this.pieces);
    const categories = Object.entries(classifier?.categories ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
    this.labels = new Map(categories.map(([category, { labels }]) => [category, labels]));
  }

  /**
   * The result of a recording of so many samples: what `pipeline(..., return_timestamps="char")` returns.
   *
   * `logProbs` is a flat (frames, tokens) array, of which `frames` frames count; `tagLogits` one list for each category.
   */
  build(logProbs, frames, tagLogits, samples) {
    const best = bestTokens(logProbs, frames, this.pieces.length + 1);
    const tokens = collapse(best.ids, this.blank);
    const probabilities = tokens.map(({ start, end }) => Math.exp(Math.max(...best.logProbs.slice(start, end))));
    const { chars, spans } = this.text(tokens);
    const parsed = parse(chars, this.markers(chars, spans, tokens), [...this.labels.keys()]);
    const kept = parsed.sources.map((source) => spans[source]);
    const times = kept.map(({ start, end }) => [this.seconds(start), this.seconds(end)]);
    const confidences = kept.map(({ token }) => calibrated(probabilities[token], this.temperature));
    const written = new Map(
      [...parsed.tags].map(([category, { name, start }]) => [category, [name, probabilities[spans[start].token]]]),
    );
    const text = chars.join("");
    const transcript = parsed.transcript.join("");
    const confidence = mean(confidences);
    const tags = mergeTags(this.headTags(tagLogits), written);
    const segment = { text, transcript, start: 0, end: round(samples / this.rate, 3), tags, confidence };
    return {
      text,
      transcript,
      confidence,
      entities: parsed.entities.map((entity) => ({ ...entity, ...spoken(entity, times, confidences) })),
      tags,
      segments: text ? [segment] : [],
      chunks: parsed.transcript.flatMap((char, index) =>
        isSpace(char) ? [] : [{ text: char, ...spoken({ start: index, end: index + 1 }, times, confidences) }],
      ),
    };
  }

  /** Join tokens as SentencePiece does, and drop one space before each punctuation mark as NeMo does. */
  text(tokens) {
    const chars = [];
    const spans = [];
    tokens.forEach(({ id, start, end }, order) => {
      let surface = [...(id === this.unknown ? " ⁇ " : (this.pieces[id] ?? "").replaceAll(WORD_BOUNDARY, " "))];
      if (surface[0] === " " && id !== this.unknown && this.isLeading(order, chars)) surface = surface.slice(1);
      const step = (end - start) / Math.max(surface.length, 1);
      surface.forEach((char, position) => {
        chars.push(char);
        spans.push({ start: start + position * step, end: start + (position + 1) * step, token: order });
      });
    });
    const isKept = (_, index) => !(isSpace(chars[index]) && this.punctuation.has(chars[index + 1]));
    return { chars: chars.filter(isKept), spans: spans.filter(isKept) };
  }

  isLeading(order, chars) {
    const dropped = this.leadingBoundaries;
    return (dropped === "drop_one" && order === 0) || (dropped === "drop_all" && chars.length === 0);
  }

  /** Markers by the identity of their tokens; those that are spelled out in several tokens by their form. */
  markers(chars, spans, tokens) {
    const markers = new Map();
    spans.forEach(({ token }, index) => {
      const name = this.markerNames.get(tokens[token].id);
      if (name && !isSpace(chars[index]) && !markers.has(token)) {
        markers.set(token, { start: index, end: index + name.length, name });
      }
    });
    const rest = [...chars];
    for (const { start, end } of markers.values()) rest.fill("\n", start, end);
    const hasEnd = [...this.markerNames.values()].includes("END");
    const spelled = spelledMarkers(rest, [...this.labels.values()].flat());
    return [...markers.values(), ...spelled.filter(({ name }) => name !== "END" || !hasEnd)].sort(
      (a, b) => a.start - b.start,
    );
  }

  headTags(tagLogits) {
    const tags = new Map();
    [...this.labels].forEach(([category, labels], index) => {
      const logits = [...tagLogits[index]];
      const highest = Math.max(...logits);
      const odds = logits.map((logit) => Math.exp(logit - highest));
      const best = logits.indexOf(highest);
      tags.set(category, [labels[best], odds[best] / odds.reduce((sum, one) => sum + one)]);
    });
    return tags;
  }

  seconds(frame) {
    return round(frame * this.frameSeconds, 3);
  }
}

/** The likeliest token of each frame, and its log-probability. */
function bestTokens(logProbs, frames, size) {
  const ids = [];
  const found = [];
  for (let frame = 0; frame < frames; frame++) {
    const row = frame * size;
    let best = 0;
    for (let id = 1; id < size; id++) if (logProbs[row + id] > logProbs[row + best]) best = id;
    ids.push(best);
    found.push(logProbs[row + best]);
  }
  return { ids, logProbs: found };
}

/** Group repeats, drop the blank. */
export function collapse(ids, blank) {
  const tokens = [];
  ids.forEach((id, frame) => {
    const last = tokens.at(-1);
    if (last?.id === id && last.end === frame) last.end++;
    else tokens.push({ id, start: frame, end: frame + 1 });
  });
  return tokens.filter(({ id }) => id !== blank);
}

function punctuationMarks(pieces) {
  const chars = pieces.filter((piece) => !NO_PUNCTUATION.test(piece)).flatMap((piece) => [...piece]);
  return new Set(chars.filter((char) => /\p{P}/u.test(char)));
}

/** Token -> name of the pieces that are a marker as a whole; END only where there are entities to end. */
function markerNames(pieces) {
  const names = pieces.map((piece) => piece.replace(/^▁+/, ""));
  const hasEntities = names.some((name) => name.startsWith(ENTITY_PREFIX) && IS_MARKER_PIECE.test(name));
  const isMarker = (name) => IS_MARKER_PIECE.test(name) && (name !== "END" || hasEntities);
  return new Map([...names.entries()].filter(([, name]) => isMarker(name)));
}

function spelledMarkers(chars, labels) {
  const known = labels
    .filter((label) => label !== "NONE")
    .sort((a, b) => b.length - a.length)
    .map((label) => label.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`));
  const text = chars.map((char) => (char.length > 1 ? "\ufffd" : char)).join(""); // one unit for each character
  const found = text.matchAll(new RegExp([...known, MARKER_IN_TEXT].join("|"), "g"));
  return [...found].map(({ 0: name, index }) => ({ start: index, end: index + name.length, name }));
}

/** Take a text with markers apart; a stray END is dropped, an entity that is not closed reaches to the next marker. */
function parse(chars, markers, categories) {
  const sources = keptSources(chars, markers);
  const transcript = sources.map((source) => chars[source]);
  const entities = [];
  const tags = new Map();
  const open = [];
  const close = (opened, stop) => {
    const inside = [...sources.keys()].filter((i) => opened.end <= sources[i] && sources[i] < stop);
    while (inside.length && isSpace(transcript[inside[0]])) inside.shift();
    while (inside.length && isSpace(transcript[inside.at(-1)])) inside.pop();
    if (!inside.length) return;
    const [start, end] = [inside[0], inside.at(-1) + 1];
    const text = transcript.slice(start, end).join("");
    entities.push({ type: opened.name.slice(ENTITY_PREFIX.length), text, start, end });
  };
  for (const marker of markers) {
    if (marker.name.startsWith(ENTITY_PREFIX)) open.push(marker);
    else if (marker.name === "END") {
      if (open.length) close(open.pop(), marker.start);
    } else tags.set(category(marker.name, categories), marker);
  }
  for (const opened of open) {
    close(opened, Math.min(chars.length, ...markers.map(({ start }) => start).filter((start) => start >= opened.end)));
  }
  entities.sort((a, b) => a.start - b.start || b.end - a.end);
  return { transcript, sources, entities, tags };
}

/** Places of the characters that stay when the markers and the spaces that set them off are taken out. */
function keptSources(chars, markers) {
  const inMarker = new Set(markers.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i)));
  const kept = [];
  for (let start = 0, stop; start < chars.length; start = stop) {
    const isGap = (index) => inMarker.has(index) || isSpace(chars[index]);
    for (stop = start + 1; stop < chars.length && isGap(stop) === isGap(start); ) stop++;
    const run = Array.from({ length: stop - start }, (_, i) => start + i);
    if (!run.some((index) => inMarker.has(index))) kept.push(...run);
    else if (start > 0 && stop < chars.length && !UNSPACED.test(chars[start - 1]) && !UNSPACED.test(chars[stop])) {
      kept.push(...run.filter((index) => !inMarker.has(index)).slice(0, 1));
    }
  }
  return kept;
}

function category(name, categories) {
  const known = categories.filter((one) => name.startsWith(`${one}_`)).sort((a, b) => b.length - a.length);
  return known[0] ?? name.split("_", 1)[0];
}

/** The head's label unless it says NONE, else the one written in the text. */
function mergeTags(head, written) {
  const tags = {};
  for (const name of [...new Set([...head.keys(), ...written.keys()])].sort()) {
    const [fromHead, fromText] = [head.get(name), written.get(name)];
    const useText = fromText !== undefined && (fromHead === undefined || fromHead[0] === "NONE");
    const [label, score] = useText ? fromText : fromHead;
    tags[name] = {
      label,
      score: round(score, 4),
      source: useText ? "text" : "head",
      head: fromHead?.[0] ?? null,
      text: fromText?.[0] ?? null,
    };
  }
  return tags;
}

/** Start and end in seconds and the confidence of the characters [start, end). */
function spoken({ start, end }, times, confidences) {
  const product = confidences.slice(start, end).reduce((all, one) => all * one, 1);
  return { timestamp: [times[start][0], times[end - 1][1]], confidence: round(product, 4) };
}

function calibrated(probability, temperature) {
  if (temperature === 1) return probability;
  const odds = (probability / Math.max(1 - probability, 1e-12)) ** (1 / temperature);
  return odds / (1 + odds);
}

function mean(values) {
  return values.length ? round(values.reduce((sum, one) => sum + one) / values.length, 4) : 0;
}

function round(value, digits) {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
