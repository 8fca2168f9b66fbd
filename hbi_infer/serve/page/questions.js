// Questions about a video, and their answers with probabilities.

import { post } from "./api.js";
import { alarm, button, make } from "./dom.js";
import { percent, span } from "./format.js";

const NUM_ANSWERS = 5;

export class Questions {
  /**
   * @param {object} about Collection and video that are asked about.
   * @param {(seconds: number) => void} seek Plays from a time.
   */
  constructor(about, seek) {
    Object.assign(this, { about, seek });
    this.field = make("input", { type: "text", name: "question", placeholder: "How many rings are there?", "aria-label": "A question about this video", autocomplete: "off", required: true, enterkeyhint: "send" });
    this.send = make("button", { type: "submit", class: "main" }, "Ask");
    this.answers = make("div", { class: "answers", "aria-live": "polite" });
    this.element = make("div", {}, make("form", { class: "ask", on: { submit: (event) => this.ask(event) } }, this.field, this.send), this.answers);
  }

  async ask(event) {
    event.preventDefault();
    const question = this.field.value.trim();
    if (!question || this.send.disabled) return;
    this.send.disabled = true;
    const place = make("div", { class: "answer" }, make("p", { class: "asked" }, question), make("p", { class: "small" }, "Thinking …"));
    this.answers.prepend(place);
    try {
      const answer = await post("/v1/answer", { ...this.about, question, top_k: NUM_ANSWERS });
      place.replaceChildren(make("p", { class: "asked" }, question), ...this.describe(answer));
      this.field.value = "";
    } catch (error) {
      place.replaceChildren(make("p", { class: "asked" }, question), alarm(error.message));
    } finally {
      this.send.disabled = false;
    }
  }

  describe({ answers, confident, start_seconds: start, end_seconds: end, unfamiliar }) {
    const bars = answers.map(({ answer, probability }) =>
      make(
        "li",
        {},
        make("span", { class: "said" }, answer),
        make("span", { class: "bar", "aria-hidden": "true", vars: { share: String(probability) } }),
        make("span", { class: "number" }, percent(probability)),
      ),
    );
    return [
      confident ? null : make("p", { class: "small" }, "Not sure: the likeliest answer is more likely wrong than right."),
      make("ol", { class: "bars" }, ...bars),
      unfamiliar ? make("p", { class: "small warning" }, "The clip is unlike what the model was trained on: do not rely on this.") : null,
      make("p", { class: "small" }, "From the clip ", button(span(start, end), () => this.seek(start), { class: "inline" })),
    ].filter(Boolean);
  }
}
