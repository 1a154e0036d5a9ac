/** Whom one looks at the map as: remembered in the page's address, so that a window can be opened as somebody. */
import { IDENTITIES, type Identity, ORGANISATIONS } from '../identities.ts'
import { colorOf } from './place.ts'

export function identityOfAddress(): Identity {
  const wanted = new URLSearchParams(location.search).get('as')
  return IDENTITIES.find((one) => one.id === wanted) ?? IDENTITIES[0]!
}

export function wireIdentities(current: Identity, choose: (identity: Identity) => void): void {
  document
    .querySelector('#identities')!
    .append(...IDENTITIES.map((one) => option(one, one === current, choose)))
  explain(current)
}

function option(
  identity: Identity,
  isChecked: boolean,
  choose: (identity: Identity) => void,
): HTMLLabelElement {
  const label = document.createElement('label')
  label.className = identity.role
  label.style.setProperty('--who', colorOf(identity.orgId))
  const input = document.createElement('input')
  Object.assign(input, { type: 'radio', name: 'identity', value: identity.id, checked: isChecked })
  input.addEventListener('change', () => {
    history.replaceState(null, '', `?as=${identity.id}${location.hash}`)
    explain(identity)
    choose(identity)
  })
  const dot = Object.assign(document.createElement('span'), { className: 'dot' })
  const name = Object.assign(document.createElement('b'), { textContent: identity.name })
  const summary = Object.assign(document.createElement('small'), { textContent: identity.summary })
  label.append(input, dot, name, summary)
  return label
}

function explain(identity: Identity): void {
  const org = ORGANISATIONS.find((one) => one.id === identity.orgId)
  const sees = org
    ? `${identity.name}'s token says ${org.name}: its places in ${org.area}, and the public ones of others.`
    : 'A token without an organisation sees what is public: the capitals.'
  const may = identity.role === 'editor' ? ' Filled dots may be changed.' : ' Any edit will be refused.'
  document.querySelector('#explains')!.textContent = sees + may
}
