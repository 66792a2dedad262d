// Renders openapi.json for people. Served from here, loads nothing else.

function make(name, content = [], className = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...[content].flat());
  return element;
}

// Text in which `this` is code.
function prose(text) {
  return text.split("`").map((part, at) => (at % 2 ? make("code", part) : part));
}

function table(heads, rows) {
  const cells = (row, kind) => make("tr", row.map((cell, at) => {
    const element = make(kind, cell);
    element.dataset.heading = heads[at]; // shown beside it on a narrow screen
    return element;
  }));
  return make("table", [make("thead", cells(heads, "th")), make("tbody", rows.map((row) => cells(row, "td")))]);
}

// The schema that `$ref` names, with what stands beside it.
function resolve(schema) {
  return schema.$ref ? { ...openapi.components.schemas[schema.$ref.split("/").pop()], ...schema } : schema;
}

function describe(reference) {
  if (!reference) return "";
  const schema = resolve(reference);
  if (schema.anyOf) return schema.anyOf.map(describe).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "object") {
    if (schema.additionalProperties?.constructor === Object) return `{"…": ${describe(schema.additionalProperties)}, …}`;
    const fields = Object.entries(schema.properties ?? {});
    return `{${fields.map(([name, field]) => `"${name}": ${describe(field)}`).join(", ")}}`;
  }
  if (schema.type === "array") return `[${describe(schema.items)}, …]`;
  return schema.format === "binary" ? "bytes" : (schema.format ?? schema.type ?? "");
}

function renderParameters(parameters) {
  return [make("h3", "Parameters"), table(["Name", "Value", "Meaning"], parameters.map((each) => [
    make("code", each.name),
    `${describe(each.schema)}, in the ${each.in}`,
    prose(each.description ?? ""),
  ]))];
}

function renderBodies(content) {
  return Object.entries(content).flatMap(([mediaType, { schema: reference }]) => {
    const schema = resolve(reference);
    return [
      make("h3", ["Body ", make("code", mediaType)]),
      schema.description ? make("p", prose(schema.description)) : "",
      table(["Field", "Value", "Needed"], Object.entries(schema.properties).map(([name, field]) => [
        make("code", name),
        describe(field),
        schema.required?.includes(name) ? "required" : "",
      ])),
    ];
  });
}

function renderAnswers(responses) {
  const rows = Object.entries(responses).map(([status, answer]) => [
    make("code", status),
    answer.description,
    Object.entries(answer.content ?? {}).map(([mediaType, { schema, examples }]) =>
      make("div", examples ? Object.keys(examples).join(", ") : make("code", `${mediaType} ${describe(schema)}`))),
    Object.keys(answer.headers ?? {}).join(", "),
  ]);
  return [make("h3", "Answers"), table(["Status", "Meaning", "Body", "Headers"], rows)];
}

function renderOperation(path, method, operation) {
  return make("section", [
    make("h2", [make("span", method, "method"), " ", make("code", path)]),
    make("p", operation.summary),
    operation.description ? make("p", prose(operation.description)) : "",
    operation.security.length ? make("p", ["Needs the header ", make("code", "X-API-KEY"), "."]) : "",
    ...(operation.parameters ? renderParameters(operation.parameters) : []),
    ...(operation.requestBody ? renderBodies(operation.requestBody.content) : []),
    ...renderAnswers(operation.responses),
  ]);
}

const base = new URL(".", location.href).href.replace(/\/$/, "");
document.getElementById("example").textContent =
  `curl ${base}/v1/upscale -H 'X-API-KEY: YOUR_KEY' -H 'Accept: image/*' -F image=@photo.jpg -F scale=4 -o upscaled.jpg`;

const openapi = await (await fetch("openapi.json")).json();
document.getElementById("about").replaceChildren(`Version ${openapi.info.version}. `, ...prose(openapi.info.description));
for (const [path, methods] of Object.entries(openapi.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    document.getElementById("operations").append(renderOperation(path, method, operation));
  }
}
