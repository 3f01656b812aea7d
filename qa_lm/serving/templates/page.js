"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("form");
const question = byId("question");
const log = byId("log");
const whole = document.querySelector("main").dataset.conversation === "whole";
const WORDS = { sure: "right", "fairly sure": "nearly", unsure: "wrong" };
let messages = [];
let busy = false;

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function begin(text) {
  const item = byId("exchange").content.firstElementChild.cloneNode(true);
  item.setAttribute("aria-busy", "true");
  item.querySelector(".asked").textContent = text;
  item.querySelector(".answer").classList.add("waiting");
  log.append(item);
  byId("empty").hidden = true;
  show(item);
  return item;
}

function percent(share) {
  return `${(100 * share).toFixed(share > 0.995 || share < 0.005 ? 1 : 0)}%`;
}

function facts(found) {
  const shown = [];
  if (found.confidence) {
    const sure = element("span", "");
    sure.append(element("b", found.confidence, WORDS[found.confidence]), ` (${found.abstained ? "the withheld answer is " : ""}right with probability ${percent(found.probability)})`);
    shown.push(sure);
  } else {
    shown.push(element("span", "how sure: not known"));
  }
  if (found.question_is) {
    shown.push(element("span", found.question_is === "not trained" ? "new question" : `${found.question_is} question`.replace(/ question question$/, " question")));
  }
  if (found.in_file === false && !found.abstained) shown.push(element("span", "not one of the trained answers"));
  return shown;
}

function neighbour({ question, answer, similarity }) {
  const item = document.createElement("li");
  const text = element("div", question);
  text.dir = "auto";
  text.append(element("small", answer));
  const number = element("span", similarity.toFixed(2));
  number.title = "similarity, from 0 to 1";
  item.append(number, text);
  return item;
}

function show(item) {
  document.documentElement.style.scrollPaddingBottom = `${form.offsetHeight}px`; // the form covers the end of the page
  item.scrollIntoView({ block: "nearest" });
}

function finish(item, text, found) {
  const answer = item.querySelector(".answer");
  answer.classList.remove("waiting");
  answer.classList.toggle("withheld", found.abstained);
  answer.textContent = text || "(an empty answer)";
  item.querySelector(".facts").replaceChildren(...facts(found));
  if (found.nearest && found.nearest.length) {
    const nearest = item.querySelector(".nearest");
    nearest.querySelector("ul").replaceChildren(...found.nearest.map(neighbour));
    nearest.hidden = false;
    nearest.open = found.question_is !== "trained";
  }
}

function fail(item, why) {
  const answer = item.querySelector(".answer");
  answer.className = "answer wrong";
  answer.textContent = why;
}

async function ask(asked) {
  const headers = { "content-type": "application/json" };
  if (byId("key")) headers.authorization = `Bearer ${byId("key").value}`;
  const response = await fetch("v1/chat/completions", { method: "POST", headers, body: JSON.stringify({ messages: asked }) });
  const content = await response.json();
  if (content.error) throw new Error(content.error.message);
  return content;
}

async function submit() {
  const text = question.value;
  if (busy || !text.trim()) return;
  if (!form.reportValidity()) return;
  busy = true;
  byId("ask").setAttribute("aria-disabled", "true");
  const item = begin(text);
  question.value = "";
  const asked = [...(whole ? messages : []), { role: "user", content: text }];
  try {
    const content = await ask(asked);
    const answer = content.choices[0].message;
    messages = [...asked, { role: "assistant", content: answer.content }];
    finish(item, answer.content, content.qa_lm);
  } catch (error) {
    fail(item, error instanceof TypeError ? "The server cannot be reached." : error.message);
    question.value = question.value || text;
  }
  item.removeAttribute("aria-busy");
  show(item);
  busy = false;
  byId("ask").removeAttribute("aria-disabled");
  question.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});

if (byId("again")) {
  byId("again").addEventListener("click", () => {
    messages = [];
    log.replaceChildren();
    byId("empty").hidden = false;
    question.focus();
  });
}
