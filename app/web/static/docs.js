"use strict";

// Swagger UI puts a link into the button that opens an operation; a control inside a control cannot be
// reached with every assistive technology. The name alone stays; opening still sets the address.
const plainNames = (system) => ({
  wrapComponents: {
    DeepLink: () => (properties) => system.React.createElement("span", null, properties.text),
  },
});

// Its selects have no name of their own: they get that of what they choose.
const nameSelects = () => {
  for (const select of document.querySelectorAll("select:not([aria-label])")) {
    const choosesExample = select.classList.contains("examples-select-element");
    select.setAttribute("aria-label", choosesExample ? "Example" : "Choice");
  }
};
new MutationObserver(nameSelects).observe(document.body, { childList: true, subtree: true });

// Dark where the viewer's system is, as every other page.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  plugins: [plainNames],
});
