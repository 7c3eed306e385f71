// The playground: asks one question at every tier, side by side.

import { chip, select } from "./decisions.js";
import { get, h, integer } from "./dom.js";
import { bearer, events, refusal } from "./feed.js";
import { thumbs } from "./thumbs.js";

let running = null;

export function prepare(state) {
  get("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(state);
  });
  get("stop").addEventListener("click", () => running?.abort());
  get("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) get("ask").requestSubmit();
  });
}

export function fillModels(models) {
  const place = get("model");
  const names = Object.keys(models);
  if (names.join() === [...place.options].map((option) => option.value).join()) return;
  const before = place.value;
  place.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  if (names.includes(before)) place.value = before;
}

async function ask(state) {
  running?.abort();
  const control = new AbortController();
  running = control;
  const model = get("model").value;
  const tiers = Object.keys(state.snapshot.models[model] ?? {});
  const cards = [card("adaptive", model, tiers, state), ...(tiers.length > 1 ? tiers.map((tier) => card(tier, `${model}:${tier}`, tiers, state)) : [])];
  get("answers").replaceChildren(...cards.map((made) => made.element));
  get("stop").hidden = false;
  get("answers-status").textContent = `Asking at ${cards.length} tiers.`;
  await Promise.all(cards.map((made) => run(made, get("question").value, control.signal)));
  if (running !== control) return;
  get("stop").hidden = true;
  get("answers-status").textContent = cards.map((made) => `${made.name}: ${made.answer.textContent}`).join("; ");
}

function card(name, model, tiers, state) {
  const [thought, answer, notes, title] = [h("div", { class: "thought", role: "group", "aria-label": `Thought at ${name}`, tabindex: "0" }), h("p", { class: "answer" }), h("p", { class: "small" }), h("h3", {}, name === "adaptive" ? "adaptive" : chip(name, tiers))];
  const element = h("article", { class: name === "adaptive" ? "panel answer-card adaptive" : "panel answer-card", "aria-busy": "true", "aria-label": `Answer at ${name}` }, title, thought, answer, notes);
  return { name, model, tiers, state, element, thought, answer, notes, title };
}

async function run(made, question, signal) {
  const begun = performance.now();
  const body = { model: made.model, messages: [{ role: "user", content: question }], stream: true, stream_options: { include_usage: true } };
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", signal, body: JSON.stringify(body),
      headers: { "content-type": "application/json", ...bearer(sessionStorage.getItem("api-key")) },
    });
    if (!response.ok) throw new Error(await refusal(response));
    decided(made, response.headers);
    await read(made, response, begun);
    const id = response.headers.get("x-thinkmeter-decision-id");
    if (id && made.state.snapshot.feedback) made.element.append(thumbs(id, made.name));
  } catch (error) {
    const stopped = error.name === "AbortError";
    made.answer.textContent = stopped ? "stopped" : error.message;
    made.answer.classList.add(stopped ? "quiet" : "bad");
  } finally {
    made.element.setAttribute("aria-busy", "false");
  }
}

function decided(made, headers) {
  const [tier, id, reason] = ["tier", "decision-id", "reason"].map((name) => headers.get(`x-thinkmeter-${name}`));
  if (!tier) return;
  if (made.name === "adaptive") {
    made.title.append(" → ", chip(tier, made.tiers), " ");
    made.title.append(h("button", { type: "button", class: "link", onclick: () => select(id, made.state, { focus: true }) }, "why?"));
  } else if (tier !== made.name) {
    made.title.append(` became ${tier}: ${reason.replaceAll("_", " ")}`);
  }
}

async function read(made, response, begun) {
  let usage = null;
  for await (const { data } of events(response)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    usage = chunk.usage ?? usage;
    const delta = chunk.choices[0]?.delta ?? {};
    const thought = delta.reasoning ?? delta.reasoning_content;
    if (thought) {
      made.thought.append(made.thought.firstChild ? thought : thought.trimStart());
      made.thought.scrollTop = made.thought.scrollHeight;
    }
    if (delta.content) made.answer.append(delta.content);
  }
  if (!made.answer.textContent.trim()) made.answer.textContent = "no answer";
  const seconds = ((performance.now() - begun) / 1000).toFixed(2);
  made.notes.textContent = usage ? `${integer(usage.completion_tokens)} tokens, ${seconds} s` : `${seconds} s`;
}
