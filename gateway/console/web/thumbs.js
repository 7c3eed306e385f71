// Thumbs beside an answer: tells the gateway whether it was right.

import { h, s } from "./dom.js";
import { bearer, refusal } from "./feed.js";

const HAND = "M3 10h4v10H3z M7 10l4-7c1.6 0 2.6 1.2 2.2 3L12.6 9H18c1.4 0 2.3 1.2 2 2.5L18.5 18c-.3 1.2-1.2 2-2.4 2H7";
const WORDS = { true: "right", false: "wrong" };

/** Two buttons for the answer with this decision ID. `name` says which answer it is. */
export function thumbs(id, name) {
  const status = h("span", { class: "small", role: "status" });
  const buttons = [true, false].map((correct) => button(correct, name, () => say(id, correct, buttons, status)));
  return h("div", { class: "thumbs", role: "group", "aria-label": `Was the answer at ${name} right?` }, buttons, status);
}

function button(correct, name, onclick) {
  const hand = s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: correct ? "hand" : "hand down" }, s("path", { d: HAND }));
  return h("button", { type: "button", "aria-pressed": "false", "aria-label": `The answer at ${name} is ${WORDS[correct]}`, title: WORDS[correct], "data-correct": String(correct), onclick }, hand);
}

async function say(id, correct, buttons, status) {
  status.textContent = "…";
  for (const each of buttons) each.disabled = true;
  try {
    await send({ decision_id: id, correct, source: "playground", replace: true });
    for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.correct === String(correct)));
    status.textContent = `noted as ${WORDS[correct]}`;
  } catch (error) {
    status.textContent = error.message;
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}

async function send(feedback) {
  const response = await fetch("v1/feedback", {
    method: "POST", body: JSON.stringify(feedback),
    headers: { "content-type": "application/json", ...bearer(sessionStorage.getItem("api-key")) },
  });
  if (!response.ok) throw new Error(await refusal(response));
}
