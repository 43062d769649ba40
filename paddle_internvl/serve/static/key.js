// The form of the API key, and requests with the key, which stays in the memory of the page; the language of the page.
const element = id => document.getElementById(id);
let key = '';

document.querySelector('main').insertAdjacentHTML('beforebegin', `<form id="key" hidden>
<label for="token"><span lang="en">This server needs an API key; it stays in this page.</span><span lang="zh">本服务需要 API 密钥；密钥只留在本页面中。</span></label>
<input id="token" type="password" autocomplete="off" required>
<button><span lang="en">Show</span><span lang="zh">显示</span></button>
</form>
<p id="problem" role="alert" hidden></p>`);

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
