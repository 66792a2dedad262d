// Bars by day, as an SVG that scales with the page.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 240, LEFT = 64, TOP = 12, BOTTOM = 28;

function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// The least of 1, 2, 5, 10, 20 ... that is no less than `most`.
export function roundUp(most) {
  let step = 1;
  while (step < most) {
    step = String(step).startsWith("2") ? step * 2.5 : step * 2;
  }
  return step;
}

// `days`: [["2026-11-28", 12], ...], oldest first, none left out; `width`: of the page, in pixels.
export function drawBars(days, label, width) {
  const top = roundUp(Math.max(...days.map(([, value]) => value)));
  const total = days.reduce((sum, [, value]) => sum + value, 0);
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    role: "img",
    "aria-label": `${label} by day, from ${days[0][0]} to ${days.at(-1)[0]}: ${Math.round(total)} in all`,
  });
  const floor = HEIGHT - BOTTOM, high = floor - TOP;
  for (const part of [0, 0.5, 1]) {
    const y = floor - part * high;
    svg.append(element("line", { x1: LEFT, x2: width, y1: y, y2: y }));
    svg.append(element("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, String(top * part)));
  }
  const each = (width - LEFT) / days.length;
  days.forEach(([day, value], number) => {
    const height = (value / top) * high;
    const bar = element("rect", {
      x: LEFT + number * each + each * 0.1,
      y: floor - height,
      width: each * 0.8,
      height,
    });
    bar.append(element("title", {}, `${day}: ${value}`));
    svg.append(bar);
  });
  for (const number of new Set([0, Math.floor((days.length - 1) / 2), days.length - 1])) {
    const anchor = number === 0 ? "start" : number === days.length - 1 ? "end" : "middle";
    const x = LEFT + (number + (number === 0 ? 0 : number === days.length - 1 ? 1 : 0.5)) * each;
    svg.append(element("text", { x, y: HEIGHT - 8, "text-anchor": anchor }, days[number][0]));
  }
  return svg;
}
