"use strict";

// Pictures of a training: the slider chooses the step.
for (const grid of document.querySelectorAll(".grid")) {
  const slider = grid.querySelector("input");
  if (!slider) continue;
  const steps = JSON.parse(grid.querySelector("script").textContent);
  slider.addEventListener("input", () => {
    const [step, picture] = steps[slider.value];
    grid.querySelector("img").src = picture;
    grid.querySelector("output").textContent = `step ${step.toLocaleString("en")}`;
  });
}

// A dancer follows the music that plays, or the place that was chosen in it.
for (const clip of document.querySelectorAll(".clip")) {
  const data = JSON.parse(clip.querySelector("script").textContent);
  const lines = [...clip.querySelectorAll(".dancer line[data-from]")];
  const head = clip.querySelector(".dancer circle");

  const show = (audio) => {
    const mark = audio.closest(".sound").querySelector(".head");
    const place = (data.width * audio.currentTime) / data.seconds;
    mark.setAttribute("x1", place);
    mark.setAttribute("x2", place);
    if (!data.frames) return;
    const frame = data.frames[Math.min(Math.round(audio.currentTime * data.fps), data.frames.length - 1)];
    for (const line of lines) {
      const [from, to] = [2 * line.dataset.from, 2 * line.dataset.to];
      line.setAttribute("x1", frame[from]);
      line.setAttribute("y1", frame[from + 1]);
      line.setAttribute("x2", frame[to]);
      line.setAttribute("y2", frame[to + 1]);
    }
    head.setAttribute("cx", frame[2 * data.head]);
    head.setAttribute("cy", frame[2 * data.head + 1]);
  };

  for (const audio of clip.querySelectorAll("audio")) {
    const follow = () => {
      show(audio);
      if (!audio.paused) requestAnimationFrame(follow);
    };
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
      follow();
    });
    audio.addEventListener("seeked", () => show(audio));
  }
}
document.documentElement.dataset.ready = "true";
