"use strict";
// What the page's other scripts build it from. Strings among the children become text nodes, never markup.

function attach(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function element(name, attributes = {}, ...children) {
  return attach(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return attach(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fixed(x, digits) {
  return x === null ? "–" : x.toFixed(digits).replace("-", "−");
}

// A way through a drawing, place by place: buttons, a slider and a line of facts. `what` names a place; `facts` are
// the parts of each line, `highlight` marks a place in the drawing.
function stepper(what, facts, highlight) {
  const back = element("button", { type: "button" }, `← ${what}`), on = element("button", { type: "button" }, `${what} →`);
  const slider = element("input", { type: "range", min: 1, max: facts.length, value: 1, "aria-label": `${what} of the response` });
  const said = element("p", { class: "facts", role: "status" });
  function show(i) {
    const at = Math.max(0, Math.min(facts.length - 1, i)), parts = [`${what} ${at + 1} of ${facts.length}`, ...facts[at]];
    highlight(at);
    slider.value = at + 1;
    slider.setAttribute("aria-valuetext", parts.join(", "));
    said.replaceChildren(...parts.flatMap((part, i) => [i ? " · " : "", element("span", {}, part)]));
    back.disabled = at === 0;
    on.disabled = at === facts.length - 1;
  }
  back.onclick = () => show(slider.valueAsNumber - 2);
  on.onclick = () => show(slider.valueAsNumber);
  slider.oninput = () => show(slider.valueAsNumber - 1);
  show(0);
  return { show, controls: element("div", { class: "stepper" }, back, slider, on), said };
}
