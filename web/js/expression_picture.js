// The picture in Edit Expression: asks the server to draw what the sliders say, one picture at a time and always the newest.

import { api } from "/scripts/api.js"

const ROUTE = "/expportrait/editor"
const SIDE = 384 // pixels
const SETTLE = 250 // ms without a change after which lips and lids are made to meet
const RETRY = 2000 // ms
const DEGREES_ACROSS = 180 // that a drag over the whole picture turns the head
const MOST_PITCH = 60

export class ExpressionPicture {
  // read() gives {values, head}: the widgets' values by name, and the head's name or null.
  // forget(head) is called when the server does not know the head any more.
  constructor(lookFrom, read, forget) {
    this.lookFrom = lookFrom // gives {yaw, pitch} in degrees, which orbiting changes
    this.read = read
    this.forget = forget
    this.canvas = document.createElement("canvas")
    this.canvas.width = this.canvas.height = SIDE
    this.canvas.title = "Drag to look around. Double-click to look straight again."
    this.hint = document.createElement("div")
    this.count = 0 // pictures drawn
    this.wanted = this.shown = null // what should be, and what is in the picture, as text
    this.settled = true
    this.request = null
    this.changed = this.refused = 0
    this.frame = null
    this.addOrbit()
    this.observer = new IntersectionObserver((entries) => this.toggle(entries.at(-1).isIntersecting))
    this.observer.observe(this.canvas)
  }

  remove() {
    this.observer.disconnect()
    this.toggle(false)
    this.request?.abort.abort()
  }

  // Off screen, collapsed or hidden, nothing is asked for.
  toggle(visible) {
    if (visible && this.frame === null) this.frame = requestAnimationFrame(() => this.tick())
    if (!visible && this.frame !== null) {
      cancelAnimationFrame(this.frame)
      this.frame = null
    }
  }

  tick() {
    this.frame = requestAnimationFrame(() => this.tick())
    const { values, head } = this.read()
    const { yaw, pitch } = this.lookFrom()
    const wanted = JSON.stringify({ values, head, yaw, pitch, side: SIDE })
    const now = performance.now()
    if (wanted !== this.wanted) {
      this.wanted = wanted
      this.changed = now
      this.refused = 0
      if (this.request?.settled) this.request.abort.abort()
    }
    if (this.request || now < this.refused) return
    if (this.wanted !== this.shown) this.draw(false)
    else if (!this.settled && now > this.changed + SETTLE) this.draw(true)
  }

  async draw(settled) {
    const text = this.wanted
    const request = (this.request = { settled, abort: new AbortController() })
    try {
      const response = await api.fetchApi(ROUTE, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...JSON.parse(text), settled }),
        signal: request.abort.signal
      })
      if (response.ok) await this.show(await response.blob(), text, settled)
      else await this.refuse(response, text)
    } catch (error) {
      if (error.name !== "AbortError") {
        this.refused = performance.now() + RETRY
        this.tell("The picture comes back when the server answers.")
      }
    }
    this.request = null
  }

  async show(blob, text, settled) {
    const picture = await createImageBitmap(blob)
    this.canvas.getContext("2d").drawImage(picture, 0, 0, SIDE, SIDE)
    picture.close()
    this.shown = text
    this.settled = settled
    this.count += 1
    this.tell(JSON.parse(text).head ? "" : "A stand-in: your person appears here after the first run.")
  }

  async refuse(response, text) {
    if (response.status === 404) return this.forget(JSON.parse(text).head)
    const answer = await response.json().catch(() => ({}))
    this.refused = Infinity // until something changes
    this.tell(answer.error ?? `The server cannot draw this (${response.status}).`)
  }

  tell(text) {
    if (this.hint.textContent !== text) this.hint.textContent = text
  }

  addOrbit() {
    let last = null
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return
      last = [event.clientX, event.clientY]
      this.canvas.setPointerCapture(event.pointerId)
      event.stopPropagation()
      event.preventDefault()
    })
    this.canvas.addEventListener("pointermove", (event) => {
      if (!last) return
      const view = this.lookFrom()
      const scale = DEGREES_ACROSS / Math.max(1, this.canvas.getBoundingClientRect().height)
      const yaw = view.yaw + (event.clientX - last[0]) * scale
      const pitch = view.pitch + (event.clientY - last[1]) * scale
      view.yaw = ((((yaw + 180) % 360) + 360) % 360) - 180
      view.pitch = Math.min(MOST_PITCH, Math.max(-MOST_PITCH, pitch))
      last = [event.clientX, event.clientY]
      event.stopPropagation()
    })
    const end = () => (last = null)
    this.canvas.addEventListener("pointerup", end)
    this.canvas.addEventListener("pointercancel", end)
    this.canvas.addEventListener("dblclick", (event) => {
      Object.assign(this.lookFrom(), { yaw: 0, pitch: 0 })
      event.stopPropagation()
    })
  }
}
