// Swagger UI of /openapi.json; its requests have the page's API key.
withKey(async () => {
    const spec = await (await read('openapi.json')).json();
    const requestInterceptor = request => ({...request, headers: {...request.headers, ...headers()}});
    SwaggerUIBundle({spec, requestInterceptor, dom_id: '#swagger-ui', deepLinking: true, defaultModelsExpandDepth: -1});
});
