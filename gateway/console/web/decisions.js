// The list of decisions, and the explanation of the selected one.

import { priceRuler } from "./charts.js";
import { clock, figure, get, h, integer, percent, signed, step } from "./dom.js";

const KEPT = 200;
const SHOWN = 60;
const WORDS = { price: "best value", only_tier: "only tier" };

let known = [];
let chosen = null;
let awaited = null; // a decision that was selected before it arrived: {id, focus}
let paused = false;

const reasonWords = (reason) => WORDS[reason] ?? reason.replaceAll("_", " ");

export function chip(tier, tiers) {
  return h("span", { class: `chip step-${step(tier, tiers)}` }, tier);
}

export function addDecisions(fresh, state) {
  known = fresh.toReversed().concat(known).slice(0, KEPT);
  if (chosen === null && known.length) chosen = known[0].decision.id;
  if (!paused) draw(state);
  if (awaited) select(awaited.id, state, awaited);
}

export function setPaused(value, state) {
  paused = value;
  if (!paused) draw(state);
}

/** Select a decision by its ID, now or as soon as it arrives. */
export function select(id, state, { focus = false } = {}) {
  awaited = known.some((entry) => entry.decision.id === id) ? null : { id, focus };
  if (awaited) return;
  chosen = id;
  draw(state);
  if (focus) {
    get("decisions").scrollIntoView({ block: "start" });
    get("why").focus({ preventScroll: true });
  }
}

export function draw(state) {
  get("log-empty").hidden = known.length > 0;
  const focused = document.activeElement?.dataset?.id;
  get("log").replaceChildren(...known.slice(0, SHOWN).map((entry) => row(entry, state)));
  if (focused) get("log").querySelector(`[data-id="${focused}"]`)?.focus();
  const entry = known.find((candidate) => candidate.decision.id === chosen);
  if (entry && get("why").dataset.id !== chosen) explain(entry, state);
}

function row(entry, state) {
  const { decision } = entry;
  const tiers = Object.keys(decision.correct);
  const current = decision.id === chosen;
  return h("tr", { class: current ? "current" : null, onclick: () => select(decision.id, state) },
    h("td", {}, h("button", { type: "button", class: "link", "data-id": decision.id, "aria-pressed": String(current), "aria-label": `Explain the decision of ${clock(entry.at)}` }, clock(entry.at))),
    h("td", {}, chip(decision.tier, tiers)),
    h("td", {}, entry.error ? h("span", { class: "bad" }, entry.error.replaceAll("_", " ")) : reasonWords(decision.reason)),
    h("td", { class: "num wide" }, decision.difficulty.toFixed(2)),
    h("td", { class: "num" }, integer(entry.completion_tokens)),
    h("td", { class: "num wide" }, integer(decision.rung_tokens)),
    h("td", { class: "num wide" }, entry.duration.toFixed(2)));
}

function explain(entry, state) {
  const place = get("why");
  const { decision, explanation } = entry;
  const tiers = Object.keys(decision.correct);
  const ranges = explanation.ranges.map((range) => ({ ...range, label: rungName(decision, range.rung, tiers) }));
  const width = Math.max(place.clientWidth - 40, 220);
  place.dataset.id = decision.id;
  place.replaceChildren(
    h("h3", {}, explanation.because),
    h("p", {}, explanation.longer),
    h("table", { class: "estimates" },
      h("caption", { class: "visually-hidden" }, "Estimates for each tier and the chosen rung"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "tier"), h("th", { scope: "col", class: "num" }, "P(right)"), h("th", { scope: "col", class: "num" }, "tokens"), h("th", { scope: "col", class: "num" }, "value"), h("th", { scope: "col", class: "wide" }, h("span", { class: "visually-hidden" }, "P(right) as a bar")))),
      h("tbody", {}, shownRungs(decision).map((rung) => estimates(entry, rung, tiers)))),
    h("p", { class: "small" }, "Value = P(right) − price × tokens ÷ 1,000. Which rung has the highest, at each price:"),
    priceRuler(width, ranges, decision.price, tiers),
    facts(entry));
}

/** The positions of the named tiers and of the chosen rung. */
function shownRungs({ rung, rungs }) {
  return [...new Set([...rungs.named, rung])].sort((one, other) => one - other);
}

/** The named tier at or below a rung. */
function tierOf({ rungs }, rung, tiers) {
  return tiers[rungs.named.filter((at) => at <= rung).length - 1];
}

/** The name of a tier, or the thinking tokens of a rung between two tiers. */
function rungName(decision, rung, tiers) {
  return decision.rungs.named.includes(rung) ? tierOf(decision, rung, tiers) : integer(decision.rungs.thinking[rung]);
}

function estimates({ decision, value, rung_value: worth }, rung, tiers) {
  const { rungs } = decision;
  const tier = tierOf(decision, rung, tiers);
  const named = rungs.named.includes(rung);
  const eligible = rung >= rungs.lowest && rung <= rungs.highest;
  const drawn = h("span", { class: `tier-back step-${step(tier, tiers)}` });
  drawn.style.width = `${rungs.correct[rung] * 100}%`;
  return h("tr", { class: rung === decision.rung ? "current" : eligible ? null : "barred" },
    h("th", { scope: "row" }, rungName(decision, rung, tiers), named ? null : h("span", { class: "small" }, " thinking"), eligible ? null : h("span", { class: "small" }, " not eligible")),
    h("td", { class: "num" }, percent(rungs.correct[rung], 1)),
    h("td", { class: "num" }, integer(rungs.tokens[rung])),
    h("td", { class: "num" }, signed(named ? value[tier] : worth, 3)),
    h("td", { class: "wide" }, h("div", { class: "meter", "aria-hidden": "true" }, drawn)));
}

function facts(entry) {
  const { decision } = entry;
  const list = [
    ["decision", decision.id], ["request", entry.request_id], ["model", decision.model], ["client asked for", decision.requested],
    ["difficulty", decision.difficulty.toFixed(3)], ["price", figure(decision.price)],
    ["thinking granted", `${integer(decision.thinking)} tokens`], ["cap", decision.cap === null ? "none" : `${integer(decision.cap)} tokens`],
    ["used", `${integer(entry.completion_tokens)} tokens, ${integer(entry.reasoning_tokens)} of them reasoning`],
    ...(entry.shadow ? [["shadow", "drawn to be asked again"]] : []), ["backend", entry.backend ?? "–"], ["status", `${entry.status}${entry.cancelled ? ", cancelled" : ""}${entry.truncated ? ", no answer: cut at the limit or ended inside the thought" : ""}`], ["head", decision.versions.head],
  ];
  if (decision.wanted) list.push(["before it was shortened", decision.wanted]);
  if (decision.compared) list.push(["arm", decision.arm ?? "outside of the comparison"]);
  if (entry.key) list.push(["key", entry.key]);
  const long = ([, value]) => value?.length > 24; // a long value takes a whole line, below the others
  list.sort((one, other) => long(one) - long(other));
  return h("details", { open: window.innerWidth > 1000 }, h("summary", {}, "The record"), h("dl", { class: "facts" }, list.map(([name, value]) => h("div", { class: long([name, value]) ? "long" : null }, h("dt", {}, name), h("dd", {}, value)))));
}
