// A power-sampling chain: its drawing, and a way through it step by step.
const chain = (() => {
  const WIDTH = 480, HEIGHT = 366, LEFT = 52, RIGHT = 468;
  const TOP = 16, MIDDLE = 176, UNDER = 204, BOTTOM = 330;  // positions above, log-likelihoods below
  const FEW = 10;  // nats: the axis shows proposals at least so far beyond the current values

  const look = (step) => step.accepted ? "accepted" : step.decoded ? "rejected" : "stayed";
  const tokens = (count) => `${count} token${count === 1 ? "" : "s"}`;

  function happened(step) {
    if (step.accepted) return "accepted";
    if (!step.decoded) return "stayed: restart past the end";
    return step.proposed === null ? `rejected early, after ${tokens(step.decoded)}` : "rejected";
  }

  function facts(step) {
    const change = step.proposed === null ? null : step.proposed - step.current;
    const proposed = change === null ? "" : `, proposed ${fixed(step.proposed, 2)} (${change < 0 ? "" : "+"}${fixed(change, 2)})`;
    return [`block ${step.block + 1}`, `restart at ${step.restart}`, `${tokens(step.decoded)} decoded`,
      `log p ${fixed(step.current, 2)}${proposed}`, happened(step)];
  }

  // The range of the lower axis: all current values, and the proposals but for far outliers.
  function range(steps, logp) {
    const current = [...steps.map((step) => step.current), logp].filter((value) => value !== null);
    const low = Math.min(...current), high = Math.max(...current), reach = Math.max((high - low) / 2, FEW);
    const near = steps.map((step) => step.proposed).filter((value) => value !== null && value >= low - reach && value <= high + reach);
    return [Math.min(low, ...near), Math.max(high, ...near)];
  }

  // Above, each step's proposal from its restart position on; below, log-likelihoods.
  function draw(steps, length, logp) {
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chain", role: "img" },
      shape("title", {}, "Restart positions and log-likelihoods by step"));
    const n = steps.length, width = (RIGHT - LEFT) / n, x = (i) => LEFT + (i + 0.5) * width;
    const longest = Math.max(length, 1, ...steps.map((step) => step.decoded && step.restart + step.decoded));
    const y = (position) => MIDDLE - (Math.min(position, longest) / longest) * (MIDDLE - TOP);
    const [low, high] = range(steps, logp);
    const level = (value) => BOTTOM - 10 - (((value ?? low) - low) / (high - low || 1)) * (BOTTOM - UNDER - 22);
    const label = (text, x, y, anchor) => svg.append(shape("text", { x, y, "text-anchor": anchor }, String(text)));

    function proposal(step, i, size) {
      const kind = `proposed ${look(step)}`;
      if (step.proposed >= low && step.proposed <= high) return shape("circle", { class: kind, cx: x(i), cy: level(step.proposed), r: size });
      const [edge, tip] = step.proposed < low ? [BOTTOM - 7, 5] : [UNDER + 7, -5], half = size + 1;
      return shape("path", { class: kind, d: `M${x(i) - half} ${edge}h${2 * half}l${-half} ${tip}z` });
    }

    function marks(step, i, size) {
      const kind = look(step), found = [];
      if (step.decoded) found.push(shape("path", { class: kind, d: `M${x(i)} ${y(step.restart)}V${y(step.restart + step.decoded)}` }));
      found.push(shape("circle", { class: kind, cx: x(i), cy: y(step.restart), r: step.decoded ? size : size / 2 }));
      if (step.proposed !== null) found.push(proposal(step, i, size * 0.8));
      return found;
    }

    const band = shape("rect", { class: "band", y: TOP, height: BOTTOM - TOP });
    const now = shape("g", { class: "now" });
    svg.append(band, shape("path", { class: "frame", d: `M${LEFT} ${TOP}V${MIDDLE}H${RIGHT}M${LEFT} ${UNDER}V${BOTTOM}H${RIGHT}` }));
    steps.forEach((step, i) => {
      if (i && step.block !== steps[i - 1].block) svg.append(shape("path", { class: "block", d: `M${LEFT + i * width} ${TOP}V${BOTTOM}` }));
    });
    const stairs = [...steps.map((step) => step.current), logp].map((value, i) => `${i ? `H${LEFT + i * width}V` : `M${LEFT} `}${level(value)}`);
    svg.append(shape("path", { class: "line", d: `${stairs.join("")}h8` }));
    const size = Math.max(1.4, Math.min(3.2, width / 3));
    svg.append(...steps.flatMap((step, i) => marks(step, i, size)), now);
    label("position (tokens)", LEFT - 46, 10, "start");
    label(longest, LEFT - 5, TOP + 9, "end");
    label("0", LEFT - 5, MIDDLE, "end");
    label("log p (nats)", LEFT - 46, UNDER - 6, "start");
    label(fixed(high, 0), LEFT - 5, level(high) + 4, "end");
    if (high > low) label(fixed(low, 0), LEFT - 5, level(low) + 4, "end");
    label("1", x(0), BOTTOM + 15, "middle");
    if (n > 1) label(n, x(n - 1), BOTTOM + 15, "middle");
    label("step", (LEFT + RIGHT) / 2, BOTTOM + 30, "middle");

    function highlight(i) {
      const broad = Math.max(7, Math.min(width, 26)), step = steps[i];
      attach(band, { x: x(i) - broad / 2, width: broad }, []);
      now.replaceChildren(shape("path", { class: "line", d: `M${x(i) - broad / 2} ${level(step.current)}h${broad}` }), ...marks(step, i, 4));
    }
    const stepAt = (clientX) => {
      const box = svg.getBoundingClientRect();
      return Math.floor((((clientX - box.left) / box.width) * WIDTH - LEFT) / width);
    };
    return { svg, highlight, stepAt, beyond: steps.filter(({ proposed }) => proposed !== null && (proposed < low || proposed > high)).length };
  }

  function key(steps, beyond) {
    const decoded = steps.filter((step) => step.decoded).length, accepted = steps.filter((step) => step.accepted).length;
    const rate = decoded ? ` (${fixed(accepted / decoded, 2)})` : "";
    return element("p", { class: "key" }, `${steps.length} steps: ${decoded} decoded a proposal, ${accepted} accepted${rate}, `
      + `${steps.length - decoded} stayed (restart past the end: grey dots). Above: what was decoded, from its restart on. `
      + "Below: the line is the current log p, a mark the log p of a proposal that was decoded to its end. "
      + `Filled: accepted; open: rejected. Dotted: blocks.${beyond ? ` Arrows at the edge: beyond the axis (${beyond}).` : ""}`);
  }

  // `rows` are steps as the page's data has them, `length` and `logp` the final response's.
  return (rows, length, logp) => {
    const steps = rows.map(([block, restart, decoded, accepted, current, proposed]) => ({ block, restart, decoded, accepted, current, proposed }));
    const { svg, highlight, stepAt, beyond } = draw(steps, length, logp);
    const { show, controls, said } = stepper("step", steps.map(facts), highlight);
    svg.onclick = (event) => show(stepAt(event.clientX));
    return element("div", {}, svg, controls, said, key(steps, beyond));
  };
})();
