// One colour for each of the pack's socket types, on links and sockets, in both ways of drawing nodes.
import { app } from "../../../scripts/app.js";

const COLOURS = {
  EXPPORTRAIT_HEAD_MODEL: "#a1887f",
  EXPPORTRAIT_HEAD_TRACK: "#4dd0e1",
  EXPPORTRAIT_HEAD_PROXY: "#ffab91",
  EXPPORTRAIT_HEAD_MOTION: "#d4e157",
  EXPPORTRAIT_GAINS: "#90a4ae",
  EXPPORTRAIT_FRAMING: "#ba68c8",
  EXPPORTRAIT_ADAPTER: "#5c6bc0",
  EXPPORTRAIT_POCKET_HEADS: "#f06292",
};

// A palette that is loaded empties the colours of types it does not know, and its own ones count more than ours.
function keepColour(table, type, ours) {
  let chosen = table[type] || ours;
  Object.defineProperty(table, type, {
    get: () => chosen,
    set: (colour) => {
      chosen = colour || ours;
    },
    enumerable: true,
    configurable: true,
  });
}

app.registerExtension({
  name: "ExpPortrait.Colours",
  setup() {
    for (const [type, colour] of Object.entries(COLOURS)) {
      keepColour(app.canvas.default_connection_color_byType, type, colour);
      keepColour(LGraphCanvas.link_type_colors, type, colour);
    }
    const style = document.createElement("style");
    const variables = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
    style.textContent = `:root { ${variables.join(" ")} }`;
    document.head.append(style);
    app.canvas.setDirty(true, true);
  },
});
