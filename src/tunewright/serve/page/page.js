"use strict";
// No framework and no request to anybody but this server. Text of models goes in as text, never as markup.
const $ = (id) => document.getElementById(id);
const state = { models: [], snippets: {}, chosen: null, histories: new Map(), tab: "curl", running: null };
let key = sessionStorage.getItem("tunewright-key") || "";

const headers = () => ({ "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) });

async function start() {
  const reply = await fetch("v1/models", { headers: headers() }).catch(() => null);
  if (reply && reply.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
    return problem(key ? WORDS.wrongKey : "");
  }
  if (!reply || !reply.ok) return problem(WORDS.unreachable);
  problem("");
  $("key-form").hidden = true;
  state.models = (await reply.json()).data;
  state.snippets = await (await fetch("snippets", { headers: headers() })).json();
  choose(state.models[0]);
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

const told = (model) => model.tunewright || {};
const isRun = (model) => told(model).base !== model.id;
const goesOn = (model) => told(model).gives === "answers" && told(model).chats === false;
const baseOf = (model) => state.models.find((one) => one.id === told(model).base && one.id !== model.id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function choose(model) {
  if (!model) return;
  state.chosen = model;
  $("models").replaceChildren(...state.models.map((one) => {
    const button = element("button");
    button.setAttribute("aria-pressed", String(one === model));
    button.append(element("b", one.id), element("small", described(one)));
    button.onclick = () => { choose(one); startOver(); };
    const item = element("li");
    item.append(button);
    return item;
  }));
  const answers = (told(model).gives || "answers") === "answers" || told(model).gives === "outputs";
  $("talk").hidden = !answers;
  const base = baseOf(model);
  $("pair-note").textContent = base ? WORDS.sideBySide.replace("{base}", base.id) : "";
  snippet();
}

function described(model) {
  const { base, gives } = told(model);
  const what = goesOn(model) ? WORDS.continuations : WORDS.gives[gives] || "";
  return [what, isRun(model) && base ? WORDS.tunedFrom.replace("{base}", base) : WORDS.asItIs]
    .filter(Boolean).join(" · ");
}

function startOver() {
  if (state.running) state.running.abort();
  state.histories.clear();
  $("answers").replaceChildren();
}

async function ask(question) {
  const base = baseOf(state.chosen);
  const asked = base ? [base, state.chosen] : [state.chosen];
  const turn = element("div", "", "turn");
  turn.append(element("div", question, "asked"));
  $("answers").append(turn);
  state.running = new AbortController();
  busy(true);
  await Promise.all(asked.map((model) => answer(model, question, turn, model === base, state.running.signal)));
  busy(false);
}

function busy(is) {
  $("send").disabled = is;
  $("stop").hidden = !is;
}

async function answer(model, question, turn, isBase, signal) {
  const box = element("div", "", isBase ? "answer base" : "answer tuned");
  const thinking = element("p", "", "thinking");
  const text = element("p");
  box.append(element("h3", isBase ? `${WORDS.base}: ${model.id}` : model.id), thinking, text);
  turn.append(box);
  const history = state.histories.get(model.id) || [];
  history.push({ role: "user", content: question });
  const goOn = goesOn(state.chosen); // with a text; the base beside it then does the same
  state.histories.set(model.id, history);
  try {
    const reply = await fetch(goOn ? "v1/completions" : "v1/chat/completions", {
      method: "POST", headers: headers(), signal,
      body: JSON.stringify({ model: model.id, stream: true, max_tokens: 512,
        temperature: Number($("temperature").value) || 0, ...(goOn ? { prompt: question } : { messages: history }) }),
    });
    if (!reply.ok) throw new Error((await reply.json()).error.message);
    for await (const piece of pieces(reply.body)) {
      if (piece.error) throw new Error(piece.error.message);
      const choice = piece.choices[0] || {};
      thinking.textContent += choice.delta?.reasoning_content || "";
      text.textContent += choice.delta?.content || choice.text || "";
    }
  } catch (error) {
    if (error.name !== "AbortError") text.append(element("span", error.message, "failed"));
  }
  history.push({ role: "assistant", content: text.textContent });
}

async function* pieces(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines)
      if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}

function snippet() {
  const lines = state.snippets[state.chosen.id] || {};
  $("snippet").textContent = (lines[state.tab] || "").replaceAll("{url}", new URL("v1", location.href).href);
  for (const tab of document.querySelectorAll("[data-tab]"))
    tab.setAttribute("aria-selected", String(tab.dataset.tab === state.tab));
}

$("key-form").onsubmit = (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem("tunewright-key", key);
  start();
};
$("ask").onsubmit = (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || $("send").disabled) return;
  $("question").value = "";
  ask(question);
};
$("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
};
$("stop").onclick = () => state.running?.abort();
$("new").onclick = startOver;
$("copy").onclick = () => navigator.clipboard?.writeText($("snippet").textContent);
for (const tab of document.querySelectorAll("[data-tab]"))
  tab.onclick = () => { state.tab = tab.dataset.tab; snippet(); };
start();
