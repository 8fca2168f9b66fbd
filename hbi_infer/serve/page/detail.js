// The pane beside the results: one moment of one video, why it was found, questions and captions.

import { get, post, withQuery } from "./api.js";
import { alarm, button, byId, icon, isPlain, make } from "./dom.js";
import { pathParts, percent, span } from "./format.js";
import { Captions } from "./captions.js";
import { HeatMap } from "./heat.js";
import { Player } from "./player.js";
import { Questions } from "./questions.js";
import { NO_MOMENT, writeAddress } from "./address.js";

/** Below this width the pane covers the page. */
const NARROW = matchMedia("(max-width: 1099px)");

export class Detail {
  /**
   * @param {object} options
   * @param {(changes: object, how?: object) => void} options.open Goes to a state with these changes.
   * @param {() => void} options.close Closes the pane.
   * @param {(clip: string) => object|null} options.match Returns what is known of a found clip.
   * @param {() => object} options.collection Returns the collection that is shown.
   */
  constructor({ open, close, match, collection }) {
    Object.assign(this, { open, close, match, collection });
    this.pane = byId("detail");
    this.shown = null;
    NARROW.addEventListener("change", () => this.cover());
  }

  get isOpen() {
    return this.shown !== null;
  }

  /** Shows the moment of a state; `play` follows a click, `focus` too. */
  async show(state, { play = false, focus = false } = {}) {
    if (!state.video) return this.hide();
    const key = `${state.collection}/${state.video}`;
    if (this.shown?.key !== key) this.build(key, state);
    const { shown } = this;
    shown.state = state;
    this.cover();
    if (focus) byId("detail-title").focus({ preventScroll: true });
    try {
      shown.video ??= await get(`/v1/videos/${encodeURIComponent(state.video)}`, this.about());
      if (this.shown !== shown || shown.state !== state) return;
      this.fill(shown);
      this.showMoment(shown, state, play);
    } catch (error) {
      if (this.shown === shown) shown.body.replaceChildren(alarm(error.message, button("Try again", () => this.retry(state))));
    }
  }

  retry(state) {
    this.hide();
    this.show(state);
  }

  hide() {
    this.shown?.player?.close();
    this.shown?.calls.abort();
    this.shown = null;
    this.pane.hidden = true;
    this.pane.replaceChildren();
    this.cover();
  }

  /** Takes the results out of reach while the pane covers them. */
  cover() {
    document.body.classList.toggle("with-detail", this.isOpen);
    byId("results").inert = this.isOpen && NARROW.matches;
    this.pane.hidden = !this.isOpen;
  }

  about() {
    return { collection: this.collection()?.id };
  }

  build(key, state) {
    this.shown?.player?.close();
    this.shown?.calls.abort();
    const name = pathParts(this.match(state.clip)?.path ?? "").name;
    const title = make("h2", { id: "detail-title", tabindex: "-1" }, name || "Video");
    const place = make("p", { class: "place" });
    const body = make("div", { class: "parts" }, make("p", { class: "small", role: "status" }, "Loading …"));
    const closing = make("button", { type: "button", class: "bare", "aria-label": "Close", title: "Close (Escape)", on: { click: () => this.close() } }, icon("close"));
    this.shown = { key, state, title, place, body, calls: new AbortController(), video: null, player: null };
    this.pane.replaceChildren(make("header", {}, make("div", {}, title, place), closing), body);
    this.pane.scrollTop = 0;
  }

  /** Draws what all moments of the video share, once. */
  fill(shown) {
    if (shown.player) return;
    const { video, state } = shown;
    const { tasks } = this.collection() ?? { tasks: [] };
    const about = { ...this.about(), video: video.id };
    shown.title.textContent = pathParts(video.path).name;
    shown.player = new Player(video.stream, { poster: this.match(state.clip)?.thumbnail, durationSeconds: video.duration_seconds });
    shown.tools = make("div", { class: "buttons" });
    shown.why = make("section", { "aria-labelledby": "why-title", hidden: true });
    const seek = (seconds) => shown.player.seek(seconds, { play: true });
    const questions = tasks.includes("qa") ? section("ask", "Ask about this video", new Questions(about, seek).element) : null;
    const writes = tasks.includes("caption");
    const captions = new Captions({ about, clips: video.clips, writes, open: (clip) => this.open(placeOf(video, clip), { play: true, replace: true }) });
    shown.player.onTime = (seconds) => captions.markTime(seconds);
    const list = section("clips", writes ? "Captions" : "Clips", captions.element);
    shown.copies = make("div", {});
    shown.body.replaceChildren(...[shown.player.element, shown.tools, shown.why, questions, list, shown.copies].filter(Boolean));
  }

  showMoment(shown, state, play) {
    const { video, player } = shown;
    const clip = clipOf(video, state);
    const match = this.match(clip?.id);
    const at = state.at === "" ? null : Number(state.at);
    const start = clip?.start_seconds ?? at ?? 0;
    const end = clip?.end_seconds ?? video.duration_seconds ?? start;
    shown.place.textContent = [pathParts(video.path).folder, span(start, end), matchText(match)].filter(Boolean).join(" · ");
    const moment = { start, end, at: Number.isFinite(at) ? at : null, best: match?.best_frame_seconds ?? [] };
    const key = `${clip?.id}/${state.at}`;
    if (shown.opened !== key) player.open(moment, { play });
    else player.describe(moment, { play });
    shown.opened = key;
    this.drawTools(shown, clip);
    this.drawCopies(shown, match);
    this.explain(shown, state, clip);
  }

  drawTools(shown, clip) {
    const { player, state } = shown;
    const tools = [button("Play moment", () => player.playMoment(), { picture: "play" }), player.loopButton];
    if (clip) tools.push(this.likeLink(state, clip), this.downloadLink(clip));
    if (navigator.clipboard) tools.push(this.linkButton());
    shown.tools.replaceChildren(...tools);
  }

  likeLink(state, clip) {
    const target = { ...state, ...NO_MOMENT, query: "", picture: "", like: clip.id };
    return this.link(target, { class: "button" }, icon("like"), make("span", {}, "More like this"));
  }

  momentLink(state, { video, clip, path, start_seconds: start, end_seconds: end }) {
    return this.link({ ...state, video, clip, at: String(start) }, {}, `${path}, ${span(start, end)}`);
  }

  /** Makes a link to another state of the page. */
  link(target, attributes, ...children) {
    const follow = (event) => {
      if (!isPlain(event)) return;
      event.preventDefault();
      this.open(target, { play: true });
    };
    return make("a", { ...attributes, href: writeAddress(target), on: { click: follow } }, ...children);
  }

  downloadLink(clip) {
    const address = withQuery(`/v1/clips/${encodeURIComponent(clip.id)}/moment`, this.about());
    return make("a", { class: "button", href: address, download: true }, icon("download"), make("span", {}, "Download"));
  }

  linkButton() {
    const copied = button("Copy link", async () => {
      await navigator.clipboard.writeText(location.href);
      copied.lastChild.textContent = "Copied";
      setTimeout(() => (copied.lastChild.textContent = "Copy link"), 2000);
    }, { picture: "link" });
    return copied;
  }

  drawCopies(shown, match) {
    const copies = match?.copies ?? [];
    const lines = copies.map((copy) => make("li", {}, this.momentLink(shown.state, copy)));
    shown.copies.replaceChildren(...(lines.length ? [section("copies", "The same is in", make("ul", { class: "plain" }, ...lines))] : []));
  }

  async explain(shown, state, clip) {
    const key = `${state.query}/${clip?.id}`;
    if (shown.explained === key) return;
    shown.explained = key;
    const { why, player, video } = shown;
    player.markTime(null);
    why.hidden = !state.query || !clip;
    if (why.hidden) return;
    const heading = make("h3", { id: "why-title" }, "Why it was found");
    why.replaceChildren(heading, make("p", { class: "small", role: "status" }, "Explaining …"));
    try {
      const body = { ...this.about(), query: state.query, video: video.id, clip: clip.id };
      const explanation = await post("/v1/explain", body, shown.calls.signal);
      if (shown.explained !== key) return;
      const map = new HeatMap(explanation, { mark: (seconds) => player.markTime(seconds), seek: (seconds) => player.seek(seconds) });
      why.replaceChildren(heading, map.element);
    } catch (error) {
      if (error.name !== "AbortError" && shown.explained === key) why.replaceChildren(heading, alarm(error.message));
    }
  }
}

function section(name, title, content) {
  return make("section", { "aria-labelledby": `${name}-title` }, make("h3", { id: `${name}-title` }, title), content);
}

/** Returns the clip that a state means: the one it names, else the one at its time, else the first. */
function clipOf(video, state) {
  const at = Number(state.at || 0);
  return (
    video.clips.find((clip) => clip.id === state.clip) ??
    video.clips.find((clip) => at >= clip.start_seconds && at < clip.end_seconds) ??
    video.clips[0] ??
    null
  );
}

function placeOf(video, clip) {
  return { video: video.id, clip: clip.id, at: String(clip.start_seconds) };
}

function matchText(match) {
  return typeof match?.match === "number" ? `match ${percent(match.match)}` : "";
}

