// The figures at the top, the budgets and the backends.

import { fillChart } from "./charts.js";
import { figure, get, h, integer, percent, short, span, step } from "./dom.js";

const CHARTED = 2; // charts are drawn for at most this many budgets: more would take too much space

function readout(name, value, unit, note) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, h("span", { class: "value" }, value), unit ? h("span", { class: "unit" }, ` ${unit}`) : null), h("dd", { class: "note" }, note));
}

/** Requests and tokens of the last minute. */
function lastMinute(seconds, now) {
  const recent = [...seconds.values()].filter((second) => second.at > now - 60);
  const sum = (field) => recent.reduce((total, second) => total + second.sums[field], 0);
  return { requests: sum("requests"), tokens: sum("tokens"), errors: sum("errors") };
}

export function drawReadouts({ snapshot, seconds, tiers }) {
  const { sums, price } = snapshot;
  const now = currentPrice(seconds) ?? price;
  const minute = lastMinute(seconds, snapshot.now);
  const saved = sums.saved / (sums.saved + sums.comparable);
  get("readouts").replaceChildren(
    readout("Price", figure(now), "per 1,000 tokens", "what they must gain in P(right)"),
    readout("Requests", integer(minute.requests), "per minute", sums.errors ? `${integer(sums.requests)} in all, ${integer(sums.errors)} with an error` : `${integer(sums.requests)} in all`),
    readout("Completion tokens", short(minute.tokens), "per minute", `${short(sums.tokens)} in all`),
    readout("Right, estimated", sums.chosen ? percent(sums.right / sums.chosen, 1) : "–", "", sums.chosen ? `${percent(sums.right_longest / sums.chosen, 1)} if always ${longestName(tiers)}` : "of requests with a choice of tier"),
    readout("Tokens saved, estimated", sums.chosen ? percent(saved) : "–", "", sums.chosen ? `${short(sums.saved)} fewer than always ${longestName(tiers)}` : "compared with the longest tier allowed"),
  );
}

const longestName = (tiers) => tiers.at(-1) ?? "the longest";

function currentPrice(seconds) {
  return seconds.size ? seconds.get(Math.max(...seconds.keys())).price : null;
}

export function drawLegend({ snapshot, tiers }) {
  const counts = snapshot.sums.tiers;
  const total = snapshot.sums.requests;
  get("legend").replaceChildren(...tiers.map((tier) =>
    h("li", {}, h("span", { class: `swatch step-${step(tier, tiers)}`, "aria-hidden": "true" }), `${tier} `, h("b", {}, total ? percent((counts[tier] ?? 0) / total) : "–"))));
}

function bar(parts, label) {
  const track = h("div", { class: "bar", role: "img", "aria-label": label });
  for (const [kind, share] of parts) {
    const part = h("span", { class: kind });
    part.style.width = `${Math.min(share * 100, 100)}%`;
    track.append(part);
  }
  return track;
}

export const windowId = ({ budget, holder, window }) => [budget, holder, window].join("\n");

export function drawBudgets({ snapshot, fills }) {
  const rows = snapshot.budgets.map((budget) => {
    const used = budget.settled + budget.reserved;
    const text = `${integer(used)} of ${integer(budget.cap)} tokens in ${span(Number(budget.window))}`;
    return h("li", {},
      h("div", { class: "row" }, h("b", {}, budget.holder !== "*" && budget.holder !== budget.budget ? `${budget.budget} · ${budget.holder}` : budget.budget), h("span", {}, percent(used / budget.cap))),
      bar([["settled", budget.settled / budget.cap], ["reserved", budget.reserved / budget.cap]], text),
      h("div", { class: "row small" }, h("span", {}, text), h("span", {}, budget.reserved ? `${integer(budget.reserved)} reserved` : "")),
      budget.price === undefined || budget.price === null ? null
        : h("div", { class: "row small" }, h("span", {}, `price ${figure(Math.max(budget.price, snapshot.price))}`), h("span", { class: budget.at_bound ? "bad" : "" }, budget.at_bound ? "at its bound" : "")),
      snapshot.budgets.length > CHARTED ? null : [fillChart(fills.get(windowId(budget)), snapshot.now), h("div", { class: "row small", "aria-hidden": "true" }, h("span", {}, "2 minutes ago"), h("span", {}, "now"))]);
  });
  const others = [...new Map(snapshot.budgets.map((budget) => [budget.budget, budget.left_out || 0])).values()].reduce((sum, count) => sum + count, 0);
  if (others) rows.push(h("li", { class: "empty" }, `${integer(others)} more, all less full`));
  get("budgets").replaceChildren(...(rows.length ? rows : [h("li", { class: "empty" }, "No budget is configured, so the price is the configured one.")]));
}

const evidence = (found) => !found || found.stage === "measured" ? ""
  : found.stage === "prior" ? " · never measured, decided by the prior" : ` · ${integer(found.prompts)} own outcomes, prior ${percent(found.prior_share)}`;

export function drawBackends({ snapshot }) {
  get("backends").replaceChildren(...snapshot.backends.map((backend) => {
    const up = backend.healthy && backend.breaker === "closed";
    const word = backend.healthy === null ? "not checked yet" : !backend.healthy ? "down" : backend.breaker === "closed" ? "healthy" : `breaker ${backend.breaker.replace("_", " ")}`;
    return h("li", {},
      h("div", { class: "row" },
        h("span", {}, h("span", { class: `dot ${up ? "good" : "bad"}`, "aria-hidden": "true" }), ` `, h("b", {}, backend.name), ` ${word}`),
        h("span", {}, `${integer(backend.in_flight)} in flight`)),
      h("div", { class: "row small" }, h("span", {}, backend.model + evidence(snapshot.evidence[backend.model])), h("span", {}, backend.context ? `context ${integer(backend.context)}` : "")),
      backend.cause ? h("div", { class: "small bad" }, backend.cause) : null,
      backend.refused?.length ? h("div", { class: "small bad" }, `refuses ${backend.refused.join(", ")}`) : null,
      backend.lost_mark ? h("div", { class: "small bad" }, `thoughts arrive in the answers (${backend.lost_mark}): check --reasoning-parser`) : null);
  }));
}

export function drawFooter({ snapshot }) {
  const { versions, version } = snapshot;
  get("footer").replaceChildren(
    h("span", {}, `Thinkmeter ${version}`), h("span", {}, `head ${versions.head}`), h("span", {}, `configuration ${versions.config}`),
    h("span", {}, "Estimates are the head's predictions, not grades."));
}
