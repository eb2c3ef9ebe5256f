() => {
  // One listener for all pieces: a click or the Enter key plays what was heard there.
  document.addEventListener("click", event => {
    const piece = event.target.closest("[data-start]");
    if (!piece) return;
    const panel = piece.closest(".ct"), audio = panel.querySelector("audio");
    panel.querySelectorAll(".playing").forEach(other => other.classList.remove("playing"));
    piece.classList.add("playing");
    audio.currentTime = +piece.dataset.start;
    audio.ontimeupdate = () => {
      if (audio.currentTime >= +piece.dataset.end) { audio.pause(); piece.classList.remove("playing"); }
    };
    audio.play();
  });

  // The microphone keeps what it hears until it is asked for it: Gradio's own drops what comes while it waits.
  const processor = `registerProcessor("ears", class extends AudioWorkletProcessor {
    process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; }
  })`;
  let pieces = [], context = null, stream = null;
  let nodes = []; // kept: nodes of a suspended context that nothing refers to are collected as garbage
  window.citrinetMicrophone = {
    async open() {
      this.close();
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      context = new AudioContext();
      await context.audioWorklet.addModule(URL.createObjectURL(new Blob([processor], { type: "text/javascript" })));
      const ears = new AudioWorkletNode(context, "ears");
      ears.port.onmessage = event => pieces.push(event.data);
      const source = context.createMediaStreamSource(stream);
      source.connect(ears);
      nodes = [source, ears];
    },
    // What was heard since the last time: 16-bit samples in base64, and their rate.
    take() {
      if (context?.state === "suspended") context.resume(); // by the browser, at the start or later
      const samples = new Int16Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
      let place = 0;
      for (const piece of pieces) for (const value of piece)
        samples[place++] = Math.round(32767 * Math.max(-1, Math.min(1, value)));
      pieces = [];
      let text = "";
      const bytes = new Uint8Array(samples.buffer);
      for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
      return [btoa(text), context ? context.sampleRate : 48000];
    },
    close() {
      const rest = this.take();
      if (stream) stream.getTracks().forEach(track => track.stop());
      if (context) context.close();
      [context, stream, nodes] = [null, null, []];
      return rest;
    },
  };
}
