"use strict";
// The browser of responses: filters, a sortable list in pages, details built when they are opened.
// Text from runs reaches the document as text nodes only.
(() => {
  const PAGE = 50;
  const DISAGREE = "verifiers disagree";
  const SIGNS = { correct: "✓", win: "✓", wrong: "✗", loss: "✗", tie: "=", undecided: "?", "not scored": "·" };
  const { runs, problems, responses } = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("list");
  const filters = document.getElementById("filters");

  const share = (r) => {
    const proposals = r.steps.filter((step) => step[2] > 0);
    return proposals.length ? r.steps.filter((step) => step[3]).length / proposals.length : null;
  };
  const disputed = (r) => r.others.some((other) => other.disagrees);
  const fixed = (x, digits) => x === null ? "–" : x.toFixed(digits).replace("-", "−");
  const COLUMNS = [
    { name: "verdict", sort: (r) => r.verdict },
    { name: "problem", sort: (r) => r.problem, text: (r) => problems[r.problem].id },
    { name: "model", sort: (r) => runs[r.run].model },
    { name: "sampler", sort: (r) => r.run, text: (r) => runs[r.run].sampler },
    { name: "replicate", label: "rep.", sort: (r) => r.replicate, number: true },
    { name: "tokens", sort: (r) => r.tokens, number: true },
    { name: "loglik", label: "log p / token", sort: (r) => r.logpPerToken, digits: 3, number: true },
    { name: "confidence", sort: (r) => r.confidence, digits: 3, number: true },
    { name: "accepted-share", label: "accepted", sort: share, digits: 2, number: true },
    { name: "excerpt", label: "response", sort: (r) => r.text },
  ];
  const state = { column: 1, down: false, page: 0, shown: [], open: null };

  function element(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function address(r) {
    const run = runs[r.run];
    const parts = [run.task, run.model, run.sampler, problems[r.problem].id, r.replicate];
    return "#response/" + parts.map((part) => encodeURIComponent(part)).join("/");
  }

  // ---- choosing what is listed

  function matches(r) {
    const run = runs[r.run], problem = problems[r.problem], { task, model, sampler, verdict, text } = filters.elements;
    const wanted = text.value.trim().toLowerCase();
    return (!task.value || run.task === task.value) && (!model.value || run.model === model.value)
      && (!sampler.value || run.sampler === sampler.value) && (!verdict.value || (verdict.value === DISAGREE ? disputed(r) : r.verdict === verdict.value))
      && (!wanted || [r.text, r.extracted ?? "", problem.id, problem.prompt, problem.gold].some((s) => s.toLowerCase().includes(wanted)));
  }

  function choose() {
    const key = COLUMNS[state.column].sort, sign = state.down ? -1 : 1;
    state.shown = responses.filter(matches).map((r) => [key(r), r]).sort(([a, r], [b, s]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = a < b ? -1 : a > b ? 1 : 0;
      return sign * order || r.problem - s.problem || r.run - s.run || r.replicate - s.replicate;
    }).map(([, r]) => r);
    state.page = 0;
    render();
  }

  // ---- the list

  function cell(column, r) {
    const td = element("td", { class: column.name + (column.number ? " number" : "") });
    if (column.name === "verdict") {
      const open = element("button", { class: "toggle " + r.verdict, type: "button", "aria-expanded": r === state.open });
      open.append(SIGNS[r.verdict], element("span", { class: "word" }, " " + r.verdict));
      td.append(open);
    } else if (column.name === "excerpt") {
      td.append(r.text.slice(0, 160).replace(/\s+/g, " ").trim());
    } else if (column.digits) {
      td.append(fixed(column.sort(r), column.digits));
    } else {
      td.append((column.text ?? column.sort)(r));
    }
    if (column.name === "problem") td.title = runs[r.run].task + " · " + problems[r.problem].id;
    return td;
  }

  function render() {
    const head = list.tHead.rows[0];
    head.replaceChildren(...COLUMNS.map((column, i) => {
      const arrow = i === state.column ? (state.down ? " ↓" : " ↑") : "";
      const button = element("button", { type: "button" }, (column.label ?? column.name) + arrow);
      button.onclick = () => {
        state.down = i === state.column && !state.down;
        state.column = i;
        choose();
      };
      const th = element("th", { scope: "col", class: column.name + (column.number ? " number" : "") }, button);
      if (arrow) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      return th;
    }));
    const start = state.page * PAGE, page = state.shown.slice(start, start + PAGE);
    list.tBodies[0].replaceChildren(...page.flatMap((r) => {
      const row = element("tr", { class: "response" + (r === state.open ? " open" : "") }, ...COLUMNS.map((c) => cell(c, r)));
      row.onclick = () => toggle(r);
      return r === state.open ? [row, detailRow(r)] : [row];
    }));
    const total = state.shown.length;
    document.getElementById("count").textContent = total
      ? `${(start + 1).toLocaleString("en")} to ${(start + page.length).toLocaleString("en")} of ${total.toLocaleString("en")}`
      : "no response matches";
    document.getElementById("previous").disabled = state.page === 0;
    document.getElementById("next").disabled = start + PAGE >= total;
  }

  function toggle(r) {
    state.open = state.open === r ? null : r;
    history.replaceState(null, "", state.open ? address(r) : "#responses");
    render();
    list.querySelector('[aria-expanded="true"]')?.focus({ preventScroll: true });
  }

  function turn(pages) {
    state.page += pages;
    render();
    list.scrollIntoView();
  }

  // ---- one response

  function detailRow(r) {
    const problem = problems[r.problem], run = runs[r.run];
    const texts = element("div", {},
      element("h3", {}, "prompt"), element("pre", { class: "prompt" }, problem.prompt),
      element("h3", {}, "response"), element("pre", { class: "text" }, r.text || "(empty)"));
    const verdict = element("span", { class: r.verdict }, `${SIGNS[r.verdict]} ${r.verdict}`);
    const facts = [
      ["verdict", verdict], ["reason", r.reason], ["by", r.by],
      ...r.others.map((other) => [other.verifier, element("span", { class: other.verdict }, `${SIGNS[other.verdict]} ${other.verdict} (${other.reason})`)]),
      ["preference", r.preference === null ? "" : fixed(r.preference, 3)],
      ["run", `${run.task} · ${run.model} · ${run.sampler} · replicate ${r.replicate}`],
      ["length", `${r.tokens} tokens after a prompt of ${r.promptTokens}, ended by ${r.ended}`],
      ["log p", `${fixed(r.logp, 1)} nats, ${fixed(r.logpPerToken, 3)} a token`],
      ["confidence", `${fixed(r.confidence, 3)} nats a token`],
      ["cost", `${r.decoded} tokens decoded, ${r.prefilled} prefilled, ${fixed(r.seconds, 1)} s`],
    ];
    const side = element("div", {}, element("h3", {}, "verdict"),
      element("dl", {}, ...facts.filter(([, value]) => value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
      element("h3", {}, "extracted answer"), element("pre", { class: "answer" }, r.extracted ?? "(none)"),
      element("h3", {}, "gold"), element("pre", { class: "answer" }, problem.gold));
    if (r.steps.length) side.append(element("h3", {}, "chain"), chain(r), chainKey(r));
    const td = element("td", { class: "detail", colspan: COLUMNS.length }, element("div", {}, texts, side));
    return element("tr", {}, td);
  }

  function chainKey(r) {
    const proposals = r.steps.filter((step) => step[2] > 0).length, accepted = r.steps.filter((step) => step[3]).length;
    const rate = proposals ? ` (${fixed(accepted / proposals, 2)})` : "";
    return element("p", { class: "key" }, `${r.steps.length} steps: ${proposals} decoded a proposal, ${accepted} accepted${rate}, `
      + `${r.steps.length - proposals} stayed (restart past the end: dots at the top). Bars: what was decoded, from its restart on; `
      + "filled accepted, open rejected. Dotted: blocks.");
  }

  // Above, each step's proposal from its restart position on; below, the current log-likelihood.
  function chain(r) {
    const SPACE = "http://www.w3.org/2000/svg", left = 52, right = 470, top = 16, middle = 180, bottom = 290;
    const shape = (name, attributes, text) => {
      const node = document.createElementNS(SPACE, name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      return node;
    };
    const svg = shape("svg", { viewBox: "0 0 480 326", class: "chain", role: "img" });
    svg.append(shape("title", {}, "Restart positions and log-likelihood by step"));
    const n = r.steps.length, width = (right - left) / n, x = (i) => left + (i + 0.5) * width;
    const longest = Math.max(r.tokens, 1, ...r.steps.map(([, restart, decoded]) => decoded && restart + decoded));
    const y = (position) => middle - (position / longest) * (middle - top);
    const logp = [...r.steps.map((step) => step[4]), r.logp].filter((value) => value !== null);
    const low = Math.min(...logp), high = Math.max(...logp), span = high - low || 1;
    const level = (value) => bottom - 6 - ((value - low) / span) * (bottom - middle - 40);
    const label = (text, x, y, anchor) => svg.append(shape("text", { x, y, "text-anchor": anchor }, text));

    svg.append(shape("path", { class: "frame", d: `M${left} ${top}V${middle}H${right}M${left} ${middle + 28}V${bottom}H${right}` }));
    r.steps.forEach(([block], i) => {
      if (i && block !== r.steps[i - 1][0]) svg.append(shape("path", { class: "block", d: `M${left + i * width} ${top}V${bottom}` }));
    });
    const size = Math.max(1.4, Math.min(3.2, width / 3));
    r.steps.forEach(([, restart, decoded, accepted], i) => {
      const kind = accepted ? "accepted" : decoded ? "rejected" : "stayed";
      if (decoded) svg.append(shape("path", { class: kind, d: `M${x(i)} ${y(restart)}V${y(restart + decoded)}` }));
      svg.append(shape("circle", { class: kind, cx: x(i), cy: y(Math.min(restart, longest)), r: decoded ? size : size / 2 }));
    });
    const stairs = logp.map((value, i) => `${i ? `H${left + i * width}V` : `M${left} `}${level(value)}`).join("");
    svg.append(shape("path", { class: "line", d: stairs }));
    label("position (tokens)", left - 46, 10, "start");
    label(longest, left - 5, top + 9, "end");
    label("0", left - 5, middle, "end");
    label("log p (nats)", left - 46, middle + 22, "start");
    label(fixed(high, 0), left - 5, level(high) + 4, "end");
    if (high > low) label(fixed(low, 0), left - 5, level(low) + 4, "end");
    label("1", x(0), bottom + 15, "middle");
    if (n > 1) label(n, x(n - 1), bottom + 15, "middle");
    label("step", (left + right) / 2, bottom + 30, "middle");
    return svg;
  }

  // ---- start

  const options = (name, values) => filters.elements[name].append(new Option("all", ""), ...[...new Set(values)].map((v) => new Option(v, v)));
  options("task", runs.map((run) => run.task));
  options("model", runs.map((run) => run.model));
  options("sampler", runs.map((run) => run.sampler));
  const verdicts = Object.keys(SIGNS).filter((name) => responses.some((r) => r.verdict === name));
  options("verdict", responses.some(disputed) ? [...verdicts, DISAGREE] : verdicts);
  let waiting;
  filters.oninput = () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); };
  filters.onsubmit = (event) => event.preventDefault();
  document.getElementById("previous").onclick = () => turn(-1);
  document.getElementById("next").onclick = () => turn(1);
  state.open = responses.find((r) => address(r) === location.hash) ?? null;
  choose();
  if (state.open) {
    state.page = Math.floor(state.shown.indexOf(state.open) / PAGE);
    render();
    list.querySelector(".open").scrollIntoView();
  }
})();
