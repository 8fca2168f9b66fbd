// The player: a video at a moment, and a line of the whole video on which the moment lies.

import { withQuery } from "./api.js";
import { button, make, setVariables } from "./dom.js";
import { clock, span } from "./format.js";

/** How early a loop turns back, so that no frame of what follows flashes. */
const LOOP_MARGIN_SECONDS = 0.03;

const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Player {
  /** @param {string} stream Address of the video. */
  constructor(stream, { poster = null, durationSeconds = null } = {}) {
    this.stream = stream;
    this.durationSeconds = durationSeconds;
    this.moment = null;
    this.loops = false;
    this.converted = false;
    this.video = make("video", { controls: true, playsinline: true, preload: "auto", poster, "aria-label": "The video" });
    this.line = make("div", { class: "timeline", "aria-hidden": "true", on: { click: (event) => this.seekOnLine(event) } });
    this.notice = make("p", { class: "note", role: "status", hidden: true });
    this.loopButton = button("Repeat", () => this.loop(!this.loops), { picture: "repeat", "aria-pressed": "false" });
    this.element = make("div", { class: "player" }, this.video, this.line, this.notice);
    this.listen();
    this.video.src = stream;
  }

  listen() {
    const { video } = this;
    video.addEventListener("loadedmetadata", () => this.ready());
    video.addEventListener("error", () => this.fallBack());
    video.addEventListener("timeupdate", () => this.tick());
    video.addEventListener("ended", () => this.loops && this.playMoment());
  }

  /** Opens a moment; what is not loaded yet opens when it is. */
  open(moment, { play = false } = {}) {
    this.describe(moment);
    this.wanted = moment.at ?? moment.start;
    this.wantsPlay = play && !isCalm();
    if (this.video.readyState >= HTMLMediaElement.HAVE_METADATA) this.arrive();
  }

  /** Tells more of the moment that is open; `play` plays it once more. */
  describe(moment, { play = false } = {}) {
    this.moment = moment;
    this.drawLine();
    if (play && !isCalm()) this.playMoment();
  }

  ready() {
    const { video } = this;
    if (!video.videoWidth) return this.fallBack();
    if (Number.isFinite(video.duration)) this.durationSeconds = video.duration;
    this.notice.hidden = true;
    this.drawLine();
    this.arrive();
  }

  arrive() {
    if (this.wanted === null || this.wanted === undefined) return;
    this.video.currentTime = this.wanted;
    this.wanted = null;
    if (this.wantsPlay) this.play();
    this.wantsPlay = false;
  }

  /** Asks for what a browser plays, once; after that says that it cannot. */
  fallBack() {
    if (this.converted) return this.say("This video cannot be played here. The moment can be downloaded.");
    this.converted = true;
    this.wanted ??= this.video.currentTime;
    this.say("Converting the video for this browser …");
    this.video.src = withQuery(this.stream, { format: "mp4" });
  }

  say(text) {
    this.notice.textContent = text;
    this.notice.hidden = false;
  }

  play() {
    this.video.play().catch(() => {}); // a browser may want a click first
  }

  seek(seconds, { play = false } = {}) {
    this.video.currentTime = seconds;
    if (play) this.play();
    else this.video.pause();
  }

  playMoment() {
    this.seek(this.moment?.start ?? 0, { play: true });
  }

  loop(on) {
    this.loops = on;
    this.loopButton.setAttribute("aria-pressed", String(on));
    if (on) this.playMoment();
  }

  tick() {
    const { currentTime } = this.video;
    if (this.loops && this.moment && currentTime >= this.moment.end - LOOP_MARGIN_SECONDS) this.playMoment();
    if (this.durationSeconds) setVariables(this.line, { now: this.share(currentTime) });
    this.onTime?.(currentTime);
  }

  share(seconds) {
    return `${(100 * Math.min(Math.max(seconds / this.durationSeconds, 0), 1)).toFixed(3)}%`;
  }

  drawLine() {
    if (!this.durationSeconds || !this.moment) return;
    const { start, end, best = [] } = this.moment;
    const ticks = best.map((seconds) => make("span", { class: "tick", title: `best frame, ${clock(seconds, { tenths: true })}`, vars: { at: this.share(seconds) } }));
    this.mark = make("span", { class: "mark", hidden: true });
    this.line.replaceChildren(
      make("span", { class: "part", title: span(start, end), vars: { from: this.share(start), to: this.share(end) } }),
      ...ticks,
      this.mark,
      make("span", { class: "now" }),
    );
    setVariables(this.line, { now: this.share(this.video.currentTime) });
  }

  /** Marks a time on the line; null takes the mark away. */
  markTime(seconds) {
    if (!this.mark) return;
    this.mark.hidden = seconds === null;
    if (seconds !== null) setVariables(this.mark, { at: this.share(seconds) });
  }

  seekOnLine(event) {
    const { left, width } = this.line.getBoundingClientRect();
    if (this.durationSeconds) this.seek(((event.clientX - left) / width) * this.durationSeconds, { play: !this.video.paused });
  }

  /** Stops loading, so that the service is not asked for what nobody sees. */
  close() {
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.closed = true;
  }
}
