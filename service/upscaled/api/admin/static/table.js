// Tables of plain text, numbers and buttons.

function cell(name, value) {
  const made = document.createElement(name);
  if (value instanceof Node) made.append(value);
  else if (typeof value === "number") {
    made.className = "number";
    made.textContent = value.toLocaleString("en", { maximumFractionDigits: 3 });
  } else made.textContent = value ?? "-";
  return made;
}

export function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

// Replace the rows of `table`; a head is a number's where its column has numbers.
export function fill(table, heads, rows) {
  const head = document.createElement("tr");
  heads.forEach((text, column) => {
    const made = cell("th", text);
    made.scope = "col";
    if (typeof rows[0]?.[column] === "number") made.className = "number";
    head.append(made);
  });
  const body = rows.map((row) => {
    const made = document.createElement("tr");
    made.append(...row.map((value) => cell("td", value)));
    return made;
  });
  table.replaceChildren(head, ...body);
}
