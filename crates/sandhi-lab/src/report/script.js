// Moves the play head over the spectrogram and lights the word; a click on the picture seeks.
for (const card of document.querySelectorAll(".example")) {
  const audio = card.querySelector("audio"), sound = card.querySelector(".sound");
  if (!audio || !sound) continue;
  const duration = Number(sound.dataset.duration), words = [...sound.querySelectorAll("li")];
  const draw = () => {
    const at = 100 * audio.currentTime / duration;
    sound.style.setProperty("--at", at + "%");
    for (const word of words) {
      const left = parseFloat(word.style.left);
      word.classList.toggle("now", left <= at && at < left + parseFloat(word.style.width));
    }
    if (!audio.paused) requestAnimationFrame(draw);
  };
  for (const event of ["play", "seeked", "pause"]) audio.addEventListener(event, draw);
  audio.addEventListener("play", () => sound.classList.add("playing"));
  sound.addEventListener("click", (event) => {
    const box = sound.getBoundingClientRect();
    audio.currentTime = duration * (event.clientX - box.left) / box.width;
    audio.play();
  });
}
