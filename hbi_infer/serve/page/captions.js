// The clips of a video as a list, each with its caption where the model writes some.

import { post } from "./api.js";
import { alarm, button, make } from "./dom.js";
import { span } from "./format.js";

/** Up to so many clips are captioned without being asked; more take a while. */
const AT_ONCE = 8;

export class Captions {
  /**
   * @param {object} options
   * @param {object} options.about Collection and video.
   * @param {object[]} options.clips Clips of the video, as /v1/videos/{id} lists them.
   * @param {boolean} options.writes Whether the model writes captions.
   * @param {(clip: object) => void} options.open Plays a clip.
   */
  constructor({ about, clips, writes, open }) {
    Object.assign(this, { about, clips, open });
    this.list = make("ol", { class: "clips", role: "list" });
    this.foot = make("div", {});
    this.element = make("div", {}, this.list, this.foot);
    this.draw(new Map());
    if (writes && clips.length <= AT_ONCE) this.write();
    else if (writes) this.foot.append(button(`Caption all ${clips.length} clips`, () => this.write()));
  }

  draw(texts) {
    this.rows = this.clips.map((clip) => {
      const { text, unfamiliar } = texts.get(clip.id) ?? {};
      const row = make(
        "button",
        { type: "button", on: { click: () => this.open(clip) } },
        make("span", { class: "time" }, span(clip.start_seconds, clip.end_seconds)),
        text ? make("span", { class: "said" }, text) : null,
        unfamiliar ? make("span", { class: "warning" }, "unlike what the model knows") : null,
      );
      return { clip, row };
    });
    this.list.replaceChildren(...this.rows.map(({ row }) => make("li", {}, row)));
  }

  async write() {
    this.foot.replaceChildren(make("p", { class: "small", role: "status" }, "Writing captions …"));
    try {
      const { captions } = await post("/v1/caption", this.about);
      this.draw(new Map(captions.map(({ clip, caption, unfamiliar }) => [clip, { text: caption, unfamiliar }])));
      this.foot.replaceChildren();
    } catch (error) {
      this.foot.replaceChildren(alarm(error.message, button("Try again", () => this.write())));
    }
  }

  /** Marks the clip that is being played. */
  markTime(seconds) {
    for (const { clip, row } of this.rows) {
      const playing = seconds >= clip.start_seconds && seconds < clip.end_seconds;
      if (playing) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }
}
