// Requests with the API key that the visitor enters, which stays in the memory of the page; the language of the page.
const element = id => document.getElementById(id);
let key = '';

const headers = () => key ? {Authorization: `Bearer ${key}`} : {};

// Call `task` now, and again with every key that is entered; an error is shown.
async function withKey(task) {
    const attempt = async () => {
        element('problem').hidden = true;
        try {
            await task();
        } catch (error) {
            element('problem').textContent = error.message;
            element('problem').hidden = !element('key').hidden && !key;
        }
    };
    element('key').addEventListener('submit', event => {
        event.preventDefault();
        key = element('token').value;
        attempt();
    });
    await attempt();
}

// The response; shows the form of the key where the server asks for one.
async function read(path) {
    const response = await fetch(path, {headers: headers()});
    element('key').hidden = response.status !== 401;
    if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
    return response;
}

document.documentElement.lang = navigator.language.startsWith('zh') ? 'zh-CN' : 'en';
document.documentElement.classList.toggle('dark-mode', matchMedia('(prefers-color-scheme: dark)').matches); // Swagger UI's
