// Edit Expression: the person's face above the sliders, which follows them; presets, and a double-click that resets a slider.
// All that it changes are the node's ordinary widgets, so ComfyUI saves it, undoes it and hands it to the server as ever.

import { app } from "/scripts/app.js"
import { ExpressionPicture } from "./expression_picture.js"

const NODE = "ExpPortraitEditExpression"
const WIDGET = "expression_editor"
const KEPT = "expportrait.heads" // in the tab's session storage: heads by node, so that reloading the page keeps the faces
const MIN_HEIGHT = 340 // pixels
const MIN_WIDTH = 320

const STYLE = `
.expportrait-editor { display: flex; flex-direction: column; gap: 4px; min-height: 0; overflow: hidden; font-size: 11px; }
.expportrait-editor canvas { flex: 1 1 auto; min-height: 0; width: 100%; aspect-ratio: 1; max-height: 640px; object-fit: contain;
  background: rgb(29, 31, 33); border-radius: 6px; cursor: grab; touch-action: none; }
.expportrait-editor canvas:active { cursor: grabbing; }
.expportrait-editor .hint { text-align: center; opacity: 0.75; color: var(--input-text); }
.expportrait-editor .hint:empty { display: none; }
.expportrait-editor .presets { display: flex; flex-wrap: wrap; gap: 3px; }
.expportrait-editor button { flex: 1 1 auto; padding: 2px 6px; border: 1px solid var(--border-color); border-radius: 4px;
  background: var(--comfy-input-bg); color: var(--input-text); font-size: 11px; cursor: pointer; }
.expportrait-editor button:hover { filter: brightness(1.3); }
.expportrait-editor button[aria-pressed="true"] { border-color: var(--p-primary-color, #67a); }
`

let sliders = {} // name: default of every slider of the node, from its definition
const views = new Map() // by node: the angle it is looked at from, which outlives the node's object when something is undone
const elements = new Map() // by node: the element that was last seen in the page
const heads = new Map(Object.entries(JSON.parse(sessionStorage.getItem(KEPT) ?? "{}")))

// A node's name that stays the same when ComfyUI makes its graph anew.
const keyOf = (node) => [node.graph?.rootGraph?.id, node.graph?.id, node.id].join("/")
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

function keepHead(node, head) {
  if (head) heads.set(keyOf(node), head)
  else heads.delete(keyOf(node))
  sessionStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(heads)))
}

function viewOf(node) {
  const key = keyOf(node)
  if (!views.has(key)) views.set(key, { yaw: 0, pitch: 0 })
  return views.get(key)
}

// Tells ComfyUI's undo that a step ends here.
const endStep = () => app.extensionManager.workflow?.activeWorkflow?.changeTracker?.checkState?.()

// Sets widgets as one step of ComfyUI's undo.
function setValues(node, values) {
  endStep()
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name)
    const before = widget?.value
    if (!widget || before === value) continue
    widget.value = value
    widget.callback?.(value, app.canvas, node)
    node.onWidgetChanged?.(name, value, before, widget)
  }
  endStep()
  node.graph?.setDirtyCanvas(true, true)
}

function readValues(node) {
  const values = { expression: widgetOf(node, "expression")?.value ?? "neutral" }
  for (const name of Object.keys(sliders)) values[name] = widgetOf(node, name)?.value ?? sliders[name]
  return values
}

function makeButton(text, title, press) {
  const button = document.createElement("button")
  button.type = "button"
  button.textContent = text
  button.title = title
  button.addEventListener("click", press)
  return button
}

function makeEditor(node) {
  const picture = new ExpressionPicture(
    () => viewOf(node),
    () => ({ values: readValues(node), head: heads.get(keyOf(node)) ?? null }),
    () => keepHead(node, null)
  )
  const element = document.createElement("div")
  element.className = "expportrait-editor"
  picture.hint.className = "hint"
  const presets = document.createElement("div")
  presets.className = "presets"
  for (const name of widgetOf(node, "expression")?.options?.values ?? []) {
    presets.append(makeButton(name, `The expression ${name}, all of it.`, () => setValues(node, { expression: name, strength: 1 })))
  }
  const reset = () => setValues(node, { expression: "neutral", ...sliders })
  presets.append(makeButton("reset", "The resting face: no expression and all sliders back.", reset))
  element.append(picture.canvas, picture.hint, presets)
  return { element, picture }
}

// Right above the sliders. Nothing of it is saved: values in a workflow stay those of the node's own widgets, in their order.
function addEditor(node) {
  const { element, picture } = makeEditor(node)
  const widget = node.addDOMWidget(WIDGET, "EXPPORTRAIT_EDITOR", element, { serialize: false, getMinHeight: () => MIN_HEIGHT })
  widget.serialize = false
  widget.picture = picture
  node.widgets.splice(node.widgets.indexOf(widget), 1)
  const first = node.widgets.findIndex((other) => other.name in sliders && other.name !== "strength")
  node.widgets.splice(first < 0 ? node.widgets.length : first, 0, widget)
  chain(node, "onSerialize", (saved) => {
    // LiteGraph leaves a hole where a widget is not saved, but does not expect one when it loads.
    if (saved.widgets_values) saved.widgets_values = node.widgets.filter((w) => w.serialize !== false).map((w) => w.value)
  })
  chain(node, "onExecuted", (output) => keepHead(node, output?.expportrait_head?.[0] ?? heads.get(keyOf(node))))
  chain(node, "onAdded", () => takeOver(node, element))
  chain(node, "onRemoved", () => picture.remove())
  for (const name of Object.keys(sliders)) resetOnDoubleClick(node, widgetOf(node, name))
  const [width, height] = node.computeSize()
  node.setSize([Math.max(width, node.size[0], MIN_WIDTH), Math.max(height, node.size[1])])
}

function chain(node, name, then) {
  const before = node[name]
  node[name] = function (...values) {
    before?.apply(this, values)
    then(...values)
  }
}

// Where ComfyUI draws sliders on its canvas.
function resetOnDoubleClick(node, widget) {
  if (!widget) return
  const before = widget.onPointerDown
  widget.onPointerDown = function (pointer, ...rest) {
    pointer.onDoubleClick = () => setValues(node, { [widget.name]: sliders[widget.name] })
    return before?.call(this, pointer, ...rest) ?? false
  }
}

// Where sliders are elements of the page: the node and the slider's name that an event is about, or null.
function sliderAt(event) {
  const name = event.target.closest?.("[aria-label]")?.getAttribute("aria-label")
  if (!(name in sliders) || event.target.closest("input, button")) return null
  const node = app.canvas.graph?.getNodeById(event.target.closest("[data-node-id]")?.dataset.nodeId)
  return node?.comfyClass === NODE ? { node, name } : null
}

function resetElement(event) {
  const slider = sliderAt(event)
  if (slider) setValues(slider.node, { [slider.name]: sliders[slider.name] })
}

// ComfyUI makes a node anew when it undoes, but where nodes are elements of the page it leaves the old widget's element there.
function takeOver(node, element, until = performance.now() + 5000) {
  const old = elements.get(keyOf(node))?.deref()
  if (old !== element && old?.isConnected && !element.isConnected) old.replaceWith(element)
  if (element.isConnected || performance.now() > until) elements.set(keyOf(node), new WeakRef(element))
  else requestAnimationFrame(() => takeOver(node, element, until))
}

app.registerExtension({
  name: "ExpPortrait.ExpressionEditor",

  setup() {
    const style = document.createElement("style")
    style.textContent = STYLE
    document.head.append(style)
    document.addEventListener("dblclick", resetElement, true)
    document.addEventListener("pointerup", (event) => sliderAt(event) && setTimeout(endStep), true)
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    const inputs = { ...nodeData.input.required, ...nodeData.input.optional }
    const isSlider = ([, [, options]]) => options?.display === "slider"
    sliders = Object.fromEntries(Object.entries(inputs).filter(isSlider).map(([name, [, options]]) => [name, options.default]))
  },

  nodeCreated(node) {
    if (node.comfyClass === NODE) addEditor(node)
  }
})
