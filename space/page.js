// One listener for all pieces: a click or the Enter key plays what was heard there.
() => document.addEventListener("click", event => {
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
})
