"use strict";

// Swagger UI puts a link into the button that opens an operation; a control inside a control cannot be
// reached with every assistive technology. The name alone stays; opening still sets the address.
const plainNames = (system) => ({
  wrapComponents: {
    DeepLink: () => (properties) => system.React.createElement("span", null, properties.text),
  },
});

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  plugins: [plainNames],
});
