// Entry point: connects the event stream to the page.

import { drawTiers } from "./charts.js";
import { addDecisions, draw as drawDecisions, setPaused } from "./decisions.js";
import { get } from "./dom.js";
import { follow } from "./feed.js";
import { drawBackends, drawBudgets, drawFooter, drawLegend, drawReadouts, windowId } from "./overview.js";
import { fillModels, prepare } from "./playground.js";
import { refresh as refreshQuality, watchQuality } from "./quality.js";

const KEPT_SECONDS = 600;
const STATES = { live: "live", waiting: "the gateway does not respond; trying again", locked: "a key is needed" };

const FILL_SECONDS = 120;

const state = { snapshot: null, seconds: new Map(), tiers: [], fills: new Map() };

/** All tiers of all models, shortest first. Each counts by its relative position among the tiers of its model. */
function ladder(models) {
  const places = new Map();
  for (const tiers of Object.values(models)) {
    Object.keys(tiers).forEach((tier, i, all) => places.set(tier, Math.max(places.get(tier) ?? 0, i / Math.max(all.length - 1, 1))));
  }
  return [...places.keys()].sort((a, b) => places.get(a) - places.get(b));
}

function snapshot(fresh) {
  if (state.snapshot && state.snapshot.since !== fresh.since) state.seconds.clear(); // the gateway was restarted
  state.snapshot = fresh;
  for (const second of fresh.seconds) state.seconds.set(second.at, second);
  for (const at of state.seconds.keys()) if (at < fresh.now - KEPT_SECONDS) state.seconds.delete(at);
  for (const budget of fresh.budgets) remember(budget, fresh.now);
  state.tiers = ladder(fresh.models);
  fillModels(fresh.models);
  if (!document.hidden) draw();
}

function remember(budget, now) {
  const past = state.fills.get(windowId(budget)) ?? [];
  past.push([now, (budget.settled + budget.reserved) / budget.cap]);
  state.fills.set(windowId(budget), past.filter(([at]) => at > now - FILL_SECONDS));
}

function draw() {
  if (!state.snapshot) return;
  for (const part of [drawReadouts, drawLegend, drawBudgets, drawBackends, drawFooter]) part(state);
  drawTiers(get("chart"), state.seconds, state.tiers, state.snapshot.now);
}

function setState(word) {
  const place = get("state");
  if (place.dataset.word === word) return;
  place.dataset.word = word;
  get("state-text").textContent = STATES[word];
  if (word === "live") refreshQuality();
  if (word === "locked") openKeys();
}

const start = () => follow({ snapshot, decisions: (fresh) => addDecisions(fresh, state), state: setState });

// --- controls ---

const THEMES = ["auto", "light", "dark"];

function showTheme() {
  get("theme-button").textContent = `Theme: ${document.documentElement.dataset.theme}`;
}

get("theme-button").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("theme", root.dataset.theme);
  showTheme();
});

get("pause").addEventListener("click", (event) => {
  const pressed = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(pressed));
  event.currentTarget.textContent = pressed ? "Resume" : "Pause";
  setPaused(pressed, state);
});

function openKeys() {
  for (const name of ["console-key", "api-key"]) get(name).value = sessionStorage.getItem(name) ?? "";
  get("keys").showModal();
}

get("keys-button").addEventListener("click", openKeys);
get("keys-cancel").addEventListener("click", () => get("keys").close());
get("keys-form").addEventListener("submit", () => {
  for (const name of ["console-key", "api-key"]) sessionStorage.setItem(name, get(name).value);
  if (get("state").dataset.word === "locked") start();
});

new ResizeObserver(draw).observe(get("chart"));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  draw();
  drawDecisions(state);
});

showTheme();
prepare(state);
watchQuality();
start();
