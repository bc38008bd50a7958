#include <string.h>

#include "command/seed_words.h"

/* Lists are broken between words, not in them. */
/* clang-format off */
const struct seed_category seed_categories[SEED_CATEGORIES] = {
    {"Technology", "technology", "How devices and networks work, and how to keep them safe.", -1,
     "cybersecurity|computer-networks|electronics"},
    {"Programming", "programming", "Writing software, from the first line to the running service.", 0,
     "python|web-development|databases"},
    {"Data Science", "data-science", "Reading data, modelling it, and telling what it says.", 0,
     "data-analysis|machine-learning|statistics"},
    {"Arts", "arts", "Seeing, making and showing.", -1, "photography|drawing|film-making"},
    {"Music", "music", "Playing, singing, and knowing why it sounds as it does.", 3,
     "guitar|music-theory|singing"},
    {"Business", "business", "Running an organisation and its money.", -1,
     "accounting|marketing|project-management"},
    {"Languages", "languages", "Speaking, writing and translating.", -1,
     "english-conversation|academic-writing|translation"},
    {"Health", "health", "Looking after oneself and others.", -1, "nutrition|first-aid|yoga"},
};

const struct seed_language seed_languages[] = {
    {"en", "{t} from Scratch|{t} in Practice|Advanced {t}",
     "Cybersecurity|Computer Networks|Electronics|Python|Web Development|Databases and SQL|Data Analysis|"
     "Machine Learning|Statistics|Photography|Drawing|Film Making|Guitar|Music Theory|Singing|Accounting|"
     "Marketing|Project Management|English Conversation|Academic Writing|Translation|Nutrition|First Aid|"
     "Yoga",
     "First steps|The foundations|Tools of the trade|Working with examples|A project of your own|"
     "Finding mistakes|Working together|Where to go next",
     "Key ideas|Step by step|A worked example|Common mistakes|Behind the scenes",
     "Reading list|Summary and glossary", "Check your knowledge", "Your turn",
     "{t}, explained without jargon and tried out at once.|Every module ends with a piece of work of your "
     "own.|You need a computer, an hour a week, and curiosity.",
     "I teach {t} in {c} and still learn something from every group.|Fifteen years of {t}, the last five of "
     "them in {c}, in front of a class.|{c} is home. I like questions that begin with \"but why\".|"
     "Learning after work, mostly on the train home to {c}.|From {c}. Here because of {t}, staying for the "
     "people.|Two children, one job, and an hour a week for {t}.|Back in {c} after years abroad, and back "
     "to learning.|I want to understand {t}, not only use it.|Curious, {c}.",
     "Exactly what I needed|Clear and well paced|Worth every hour|The examples come from real work, and it "
     "shows.|I finished it in three weeks and use it every day.|Questions were answered within a day.|"
     "The best explanation of {t} I have found.",
     "Good, with some gaps|Solid content, but the middle part drags.|I would have liked more exercises.",
     "Not for me|Too fast for a beginner.|The sound of several videos is hard to follow."},
    {"fr", "{t} : les bases|{t} par la pratique|{t} : niveau avancé",
     "Cybersécurité|Réseaux informatiques|Électronique|Python|Développement web|Bases de données et SQL|"
     "Analyse de données|Apprentissage automatique|Statistiques|Photographie|Dessin|Cinéma|Guitare|"
     "Théorie musicale|Chant|Comptabilité|Marketing|Gestion de projet|Conversation anglaise|"
     "Rédaction universitaire|Traduction|Nutrition|Premiers secours|Yoga",
     "Premiers pas|Les fondamentaux|Les outils du métier|Études de cas|Votre projet|Repérer les erreurs|"
     "Travailler à plusieurs|Pour aller plus loin",
     "Les idées clés|Pas à pas|Un exemple détaillé|Les erreurs fréquentes|Dans les coulisses",
     "À lire|Résumé et glossaire", "Testez vos connaissances", "À vous de jouer",
     "{t} : l’essentiel, expliqué simplement et mis en pratique aussitôt.|Chaque module se termine par un "
     "travail personnel.|Un ordinateur, une heure par semaine et de la curiosité suffisent.",
     "J’enseigne à {c}, une seule passion : {t}.|J’apprends le soir, à {c}.|De {c}. Ici pour « {t} », et "
     "pour l’ambiance.",
     "Exactement ce qu’il me fallait|Clair et bien rythmé|À suivre sans hésiter|"
     "Les exemples viennent du terrain, cela se sent.|Terminé en trois semaines, utile chaque jour.|"
     "On répond à vos questions dans la journée.|La meilleure introduction au sujet que j’aie trouvée.",
     "Bien, mais inégal|Le contenu est solide, le milieu un peu long.|J’aurais aimé davantage d’exercices.",
     "Décevant|Beaucoup trop rapide pour débuter.|Le son de plusieurs vidéos est mauvais."},
    {"es", "{t} desde cero|{t} en la práctica|{t}: nivel avanzado",
     "Ciberseguridad|Redes informáticas|Electrónica|Python|Desarrollo web|Bases de datos y SQL|"
     "Análisis de datos|Aprendizaje automático|Estadística|Fotografía|Dibujo|Cine|Guitarra|Teoría musical|"
     "Canto|Contabilidad|Marketing|Gestión de proyectos|Conversación en inglés|Escritura académica|"
     "Traducción|Nutrición|Primeros auxilios|Yoga",
     "Primeros pasos|Los fundamentos|Las herramientas|Aprender con ejemplos|Tu propio proyecto|"
     "Encontrar errores|Trabajar en equipo|¿Y ahora qué?",
     "Ideas clave|Paso a paso|Un ejemplo completo|Errores frecuentes|Entre bastidores",
     "Lecturas|Resumen y glosario", "Comprueba lo aprendido", "Ahora te toca a ti",
     "{t} sin tecnicismos y con práctica desde el primer día.|Cada módulo termina con un trabajo propio.|"
     "Hace falta un ordenador, una hora a la semana y curiosidad.",
     "Doy clases en {c}. Lo mío: {t}.|Estudio por las noches, en {c}.|De {c}. Vine por el curso de {t} y "
     "aquí sigo.",
     "Justo lo que buscaba|Claro y con buen ritmo|Muy recomendable|Los ejemplos son de la vida real, y se "
     "nota.|Lo terminé en tres semanas y lo uso a diario.|Responden las dudas el mismo día.|"
     "La mejor explicación del tema que he encontrado.",
     "Bien, con altibajos|Buen contenido, aunque la parte central se hace larga.|"
     "Eché en falta más ejercicios.",
     "No era para mí|Demasiado rápido para empezar.|En varios vídeos apenas se oye."},
    {"pt", "{t} do zero|{t} na prática|{t}: nível avançado",
     "Segurança digital|Redes de computadores|Eletrônica|Python|Desenvolvimento web|Bancos de dados e SQL|"
     "Análise de dados|Aprendizado de máquina|Estatística|Fotografia|Desenho|Cinema|Violão|Teoria musical|"
     "Canto|Contabilidade|Marketing|Gestão de projetos|Conversação em inglês|Redação acadêmica|Tradução|"
     "Nutrição|Primeiros socorros|Ioga",
     "Primeiros passos|Os fundamentos|As ferramentas|Aprendendo com exemplos|Seu próprio projeto|"
     "Encontrando erros|Trabalho em equipe|E depois?",
     "Ideias principais|Passo a passo|Um exemplo completo|Erros comuns|Nos bastidores",
     "Leituras|Resumo e glossário", "Teste o que aprendeu", "Agora é com você",
     "{t} sem complicação e com a mão na massa.|Cada módulo termina com um trabalho seu.|"
     "Basta um computador, uma hora por semana e curiosidade.",
     "Dou aulas em {c}. Minha área: {t}.|Estudo à noite, em {c}.|De {c}. Vim pelo curso de {t} e acabei "
     "ficando.",
     "Era o que eu precisava|Claro e no ritmo certo|Vale cada hora|Os exemplos são da vida real.|"
     "Terminei em três semanas e uso todo dia.|Respondem às dúvidas no mesmo dia.|"
     "A melhor explicação que já encontrei.",
     "Bom, com falhas|Bom conteúdo, mas o meio é cansativo.|Senti falta de mais exercícios.",
     "Não era para mim|Rápido demais para quem começa.|O som de vários vídeos é ruim."},
    {"de", "{t} von Grund auf|{t} in der Praxis|{t} für Fortgeschrittene",
     "IT-Sicherheit|Rechnernetze|Elektronik|Python|Webentwicklung|Datenbanken und SQL|Datenanalyse|"
     "Maschinelles Lernen|Statistik|Fotografie|Zeichnen|Filmemachen|Gitarre|Musiktheorie|Gesang|Buchhaltung|"
     "Marketing|Projektmanagement|Englische Konversation|Wissenschaftliches Schreiben|Übersetzen|Ernährung|"
     "Erste Hilfe|Yoga",
     "Erste Schritte|Die Grundlagen|Das Handwerkszeug|Lernen an Beispielen|Ein eigenes Projekt|"
     "Fehler finden|Gemeinsam arbeiten|Wie es weitergeht",
     "Worum es geht|Schritt für Schritt|Ein durchgerechnetes Beispiel|Häufige Fehler|Hinter den Kulissen",
     "Zum Nachlesen|Zusammenfassung und Glossar", "Wissen prüfen", "Jetzt sind Sie dran",
     "{t}: verständlich erklärt und sofort ausprobiert.|Jedes Modul endet mit einer eigenen Arbeit.|"
     "Nötig sind ein Rechner, eine Stunde in der Woche und Neugier.",
     "Unterrichtet in {c}, Schwerpunkt: {t}.|Lernt nach Feierabend, meist im Zug nach {c}.|"
     "Aus {c}. Wegen »{t}« gekommen, wegen der Leute geblieben.",
     "Genau das Richtige|Klar und im richtigen Tempo|Jede Stunde wert|Die Beispiele stammen aus der Praxis, "
     "das merkt man.|In drei Wochen durch, seitdem täglich im Einsatz.|Fragen werden am selben Tag "
     "beantwortet.|Die beste Erklärung, die ich kenne.",
     "Gut, mit Lücken|Solider Inhalt, aber der Mittelteil zieht sich.|Mehr Übungen wären schön gewesen.",
     "Nichts für mich|Für den Einstieg viel zu schnell.|Bei mehreren Videos ist der Ton schlecht."},
    {"pl", "{t} od podstaw|{t} w praktyce|{t} dla zaawansowanych",
     "Cyberbezpieczeństwo|Sieci komputerowe|Elektronika|Python|Tworzenie stron|Bazy danych i SQL|"
     "Analiza danych|Uczenie maszynowe|Statystyka|Fotografia|Rysunek|Film|Gitara|Teoria muzyki|Śpiew|"
     "Księgowość|Marketing|Zarządzanie projektami|Konwersacje angielskie|Pisanie naukowe|Tłumaczenia|"
     "Żywienie|Pierwsza pomoc|Joga",
     "Pierwsze kroki|Podstawy|Narzędzia|Nauka na przykładach|Własny projekt|Szukanie błędów|Praca zespołowa|"
     "Co dalej", "Najważniejsze pojęcia|Krok po kroku|Przykład od A do Z|Typowe błędy|Od kuchni",
     "Lektury|Podsumowanie i słownik", "Sprawdź się", "Twoja kolej",
     "{t}: zrozumiale i od razu w praktyce.|Każdy moduł kończy się własną pracą.|"
     "Wystarczy komputer, godzina tygodniowo i ciekawość.",
     "Uczę w mieście {c}. Moja dziedzina: {t}.|Uczę się wieczorami, {c}.|"
     "{c}. Najpierw „{t}”, potem cała reszta.",
     "Dokładnie to, czego trzeba|Jasno i w dobrym tempie|Warto|Przykłady są z życia i to widać.|"
     "Skończone w trzy tygodnie, przydaje się codziennie.|Na pytania odpowiadają tego samego dnia.|"
     "Najlepsze wyjaśnienie, jakie znam.",
     "Dobry, ale nierówny|Treść w porządku, środek się dłuży.|Przydałoby się więcej ćwiczeń.",
     "Nie dla mnie|Za szybko jak na początek.|W kilku filmach źle słychać."},
    {"el", "{t} από την αρχή|{t} στην πράξη|{t} για προχωρημένους",
     "Κυβερνοασφάλεια|Δίκτυα υπολογιστών|Ηλεκτρονική|Python|Ανάπτυξη ιστοσελίδων|Βάσεις δεδομένων και SQL|"
     "Ανάλυση δεδομένων|Μηχανική μάθηση|Στατιστική|Φωτογραφία|Σχέδιο|Κινηματογράφος|Κιθάρα|Θεωρία μουσικής|"
     "Τραγούδι|Λογιστική|Μάρκετινγκ|Διοίκηση έργων|Αγγλική συνομιλία|Ακαδημαϊκή γραφή|Μετάφραση|Διατροφή|"
     "Πρώτες βοήθειες|Γιόγκα",
     "Πρώτα βήματα|Τα θεμέλια|Τα εργαλεία|Μαθαίνω με παραδείγματα|Το δικό σας έργο|Εντοπισμός λαθών|"
     "Συνεργασία|Τα επόμενα βήματα",
     "Βασικές ιδέες|Βήμα προς βήμα|Ένα πλήρες παράδειγμα|Συχνά λάθη|Στα παρασκήνια",
     "Για διάβασμα|Σύνοψη και γλωσσάρι", "Ελέγξτε τις γνώσεις σας", "Η σειρά σας",
     "{t}: απλά λόγια και αμέσως πράξη.|Κάθε ενότητα τελειώνει με μια δική σας εργασία.|"
     "Χρειάζεστε υπολογιστή, μία ώρα την εβδομάδα και περιέργεια.",
     "Διδάσκω στην πόλη μου ({c}): {t}.|Μαθαίνω τα βράδια, {c}.|{c}. Ήρθα για το μάθημα «{t}» και έμεινα.",
     "Ό,τι ακριβώς χρειαζόμουν|Καθαρό και με ρυθμό|Αξίζει|Τα παραδείγματα είναι από τη δουλειά και "
     "φαίνεται.|Το τελείωσα σε τρεις εβδομάδες.|Απαντούν στις ερωτήσεις αυθημερόν.|"
     "Η καλύτερη εξήγηση που έχω βρει.",
     "Καλό, με κενά|Σωστό περιεχόμενο, αλλά το μέσον κουράζει.|Θα ήθελα περισσότερες ασκήσεις.",
     "Δεν ήταν για μένα|Πολύ γρήγορο για αρχάριους.|Ο ήχος σε μερικά βίντεο είναι κακός."},
    {"uk", "{t} з нуля|{t} на практиці|{t} для досвідчених",
     "Кібербезпека|Комп’ютерні мережі|Електроніка|Python|Веброзробка|Бази даних і SQL|Аналіз даних|"
     "Машинне навчання|Статистика|Фотографія|Малювання|Кіно|Гітара|Теорія музики|Спів|Бухгалтерія|Маркетинг|"
     "Керування проєктами|Розмовна англійська|Академічне письмо|Переклад|Харчування|Перша допомога|Йога",
     "Перші кроки|Основи|Інструменти|Вчимося на прикладах|Власний проєкт|Пошук помилок|Спільна робота|"
     "Що далі", "Головні ідеї|Крок за кроком|Повний приклад|Поширені помилки|За лаштунками",
     "Що почитати|Підсумок і словник", "Перевірте себе", "Ваша черга",
     "{t}: просто пояснено й одразу на практиці.|Кожен модуль завершується власною роботою.|"
     "Потрібні комп’ютер, година на тиждень і цікавість.",
     "Викладаю, місто {c}. Мій предмет: {t}.|Вчуся вечорами, {c}.|{c}. Усе почалося з курсу «{t}».",
     "Саме те, що треба|Зрозуміло й послідовно|Варте кожної години|Приклади з життя, і це відчувається.|"
     "Завершено за три тижні, стає в пригоді щодня.|На запитання відповідають того ж дня.|"
     "Найкраще пояснення з усіх.", "Добре, але нерівно|Зміст хороший, середина затягнута.|Бракує вправ.",
     "Не для мене|Зашвидко для початківця.|У кількох відео поганий звук."},
    {"ar", "{t} من الصفر|{t}: تطبيقات عملية|{t}: المستوى المتقدم",
     "الأمن السيبراني|شبكات الحاسوب|الإلكترونيات|بايثون|تطوير الويب|قواعد البيانات|تحليل البيانات|"
     "تعلم الآلة|الإحصاء|التصوير|الرسم|صناعة الأفلام|الجيتار|نظرية الموسيقى|الغناء|المحاسبة|التسويق|"
     "إدارة المشاريع|المحادثة الإنجليزية|الكتابة الأكاديمية|الترجمة|التغذية|الإسعافات الأولية|اليوغا",
     "الخطوات الأولى|الأساسيات|الأدوات|التعلم بالأمثلة|مشروعك الخاص|اكتشاف الأخطاء|العمل الجماعي|ماذا بعد",
     "الأفكار الرئيسية|خطوة بخطوة|مثال كامل|أخطاء شائعة|خلف الكواليس", "للقراءة|ملخص ومصطلحات",
     "اختبر معلوماتك", "دورك الآن",
     "{t} بشرح بسيط وتطبيق فوري.|تنتهي كل وحدة بعمل من إنجازك.|تحتاج إلى حاسوب وساعة في الأسبوع وفضول.",
     "أقيم في {c}، وتخصصي: {t}.|أتعلم في المساء، {c}.|من {c}. بدأت بدورة {t} وما زلت أتعلم.",
     "ما كنت أبحث عنه|شرح واضح|تستحق الوقت|الأمثلة من واقع العمل.|أنهيتها في ثلاثة أسابيع وأستفيد منها كل "
     "يوم.|الرد على الأسئلة سريع.|أفضل شرح وجدته.",
     "جيدة مع بعض الثغرات|المحتوى جيد لكن الجزء الأوسط طويل.|كنت أتمنى تمارين أكثر.",
     "لم تناسبني|سريعة جدا للمبتدئين.|الصوت ضعيف في عدة مقاطع."},
    {"am", "{t}፦ መግቢያ|{t} በተግባር|{t}፦ ከፍተኛ ደረጃ",
     "የሳይበር ደህንነት|የኮምፒውተር ኔትወርክ|ኤሌክትሮኒክስ|ፓይተን|የድረ ገጽ ግንባታ|የመረጃ ቋት|የመረጃ ትንተና|የማሽን ትምህርት|ስታቲስቲክስ|ፎቶግራፍ|ሥዕል|"
     "የፊልም ሥራ|ጊታር|የሙዚቃ ንድፈ ሐሳብ|ዘፈን|የሂሳብ አያያዝ|ግብይት|የፕሮጀክት አስተዳደር|የእንግሊዝኛ ንግግር|ምሁራዊ ጽሑፍ|ትርጉም|ሥነ ምግብ|"
     "የመጀመሪያ እርዳታ|ዮጋ", "የመጀመሪያ እርምጃዎች|መሠረቶች|መሣሪያዎች|በምሳሌ መማር|የራስ ፕሮጀክት|ስህተትን ማግኘት|በጋራ መሥራት|ቀጣዩ መንገድ",
     "ዋና ሐሳቦች|ደረጃ በደረጃ|የተሟላ ምሳሌ|የተለመዱ ስህተቶች|ከመድረክ በስተጀርባ", "ንባብ|ማጠቃለያ", "ራስዎን ይፈትኑ", "የእርስዎ ተራ",
     "{t} በቀላል አማርኛ እና በተግባር።|እያንዳንዱ ክፍል በራስዎ ሥራ ይጠናቀቃል።|ኮምፒውተር እና በሳምንት አንድ ሰዓት ይበቃል።",
     "{c} አስተምራለሁ፤ ሙያዬ {t} ነው።|ማታ ማታ እማራለሁ፣ {c}።|ከ{c}። በ{t} ጀመርኩ።",
     "በጣም ጥሩ|ግልጽ ትምህርት|ይመከራል|ምሳሌዎቹ ከእውነተኛ ሥራ ናቸው።|በሦስት ሳምንት ጨረስኩት።|ለጥያቄ በፍጥነት ይመልሳሉ።|እስካሁን ያየሁት ምርጥ ማብራሪያ።",
     "ጥሩ ነው|ይዘቱ ጥሩ ነው፣ መሐሉ ረዘመ።|ተጨማሪ መልመጃ ቢኖር ጥሩ ነበር።", "አልተመቸኝም|ለጀማሪ በጣም ፈጣን ነው።|የአንዳንድ ቪዲዮ ድምፅ ደካማ ነው።"},
    {"sw", "{t} kwa wanaoanza|{t} kwa vitendo|{t}: ngazi ya juu",
     "Usalama wa mtandao|Mitandao ya kompyuta|Elektroniki|Python|Kuunda tovuti|Hifadhidata na SQL|"
     "Uchambuzi wa data|Kujifunza kwa mashine|Takwimu|Upigaji picha|Uchoraji|Utengenezaji filamu|Gitaa|"
     "Nadharia ya muziki|Uimbaji|Uhasibu|Masoko|Usimamizi wa miradi|Mazungumzo ya Kiingereza|"
     "Uandishi wa kitaaluma|Tafsiri|Lishe|Huduma ya kwanza|Yoga",
     "Hatua za kwanza|Misingi|Zana za kazi|Kujifunza kwa mifano|Mradi wako|Kutafuta makosa|"
     "Kufanya kazi pamoja|Hatua inayofuata",
     "Mawazo makuu|Hatua kwa hatua|Mfano kamili|Makosa ya kawaida|Nyuma ya pazia",
     "Vya kusoma|Muhtasari na msamiati", "Jipime", "Zamu yako",
     "{t} kwa lugha rahisi na vitendo papo hapo.|Kila sehemu inaishia na kazi yako mwenyewe.|"
     "Unahitaji kompyuta, saa moja kwa wiki, na udadisi.",
     "Nafundisha {c}. Somo langu: {t}.|Najifunza jioni, {c}.|Kutoka {c}. Nilianza na {t}.",
     "Nilichohitaji hasa|Inaeleweka vizuri|Inafaa sana|Mifano inatoka kazini kweli.|"
     "Nilimaliza kwa wiki tatu.|Maswali hujibiwa siku hiyohiyo.|Maelezo bora kuliko yote.",
     "Nzuri, ina mapengo|Maudhui ni mazuri, lakini katikati ni ndefu.|Ningependa mazoezi zaidi.",
     "Haikunifaa|Ni ya haraka mno kwa anayeanza.|Sauti ya video kadhaa ni hafifu."},
    {"zh", "{t}入门|{t}实战|{t}高级课程",
     "网络安全|计算机网络|电子学|Python|网站开发|数据库与SQL|数据分析|机器学习|统计学|摄影|素描|电影制作|吉他|乐理|声乐|会计|市场营销|项目管理|英语口语|学术写作|翻译|营养学|急救|"
     "瑜伽", "第一步|基础知识|常用工具|案例学习|自己的项目|查找错误|团队协作|下一步", "核心概念|分步讲解|完整示例|常见错误|幕后故事", "阅读材料|小结与词汇表", "知识测验",
     "动手练习", "用通俗的语言讲解{t}，学完马上练习。|每个单元都以自己的作品结束。|只需一台电脑、每周一小时和一份好奇心。",
     "在{c}教授{t}。|下班后学习，住在{c}。|来自{c}，因为{t}来到这里。",
     "正是我需要的|讲得清楚|物有所值|例子都来自实际工作。|三周学完，每天都用得上。|提问当天就有答复。|这是我见过最好的讲解。", "不错，但有缺憾|内容扎实，中间部分略显冗长。|希望练习再多一些。",
     "不太适合我|对初学者来说太快了。|有几段视频声音不清楚。", true},
    {"ja", "{t}入門|実践{t}|{t}上級編",
     "サイバーセキュリティ|コンピュータネットワーク|電子工作|Python|ウェブ開発|データベースとSQL|データ分析|機械学習|統計学|写真|デッサン|映画制作|ギター|音楽理論|ボーカル|簿記|"
     "マーケティング|プロジェクト管理|英会話|論文の書き方|翻訳|栄養学|応急手当|ヨガ",
     "はじめの一歩|基礎を固める|道具を知る|例題で学ぶ|自分の作品づくり|間違いを見つける|みんなで取り組む|次のステップ", "大切な考え方|一歩ずつ|例題をじっくり|よくある間違い|舞台裏",
     "参考資料|まとめと用語集", "理解度チェック", "やってみよう",
     "{t}をやさしい言葉で学び、すぐに手を動かします。|各章の最後に自分の作品を仕上げます。|パソコンと週一時間、そして好奇心があれば十分です。",
     "{c}で{t}を教えています。|仕事のあとに少しずつ学んでいます（{c}）。|{c}在住。きっかけは{t}でした。",
     "まさに求めていた内容|わかりやすい|受けてよかった|例が実際の仕事に基づいています。|三週間で終わり、毎日役立っています。|質問への返事が早いです。|これまでで一番わかりやすい説明でした。",
     "よいが惜しい|内容は確かですが、中盤が長く感じました。|練習問題がもっとほしかったです。", "合わなかった|初心者には速すぎました。|いくつかの動画の音が聞き取りにくいです。", true},
    {"ko", "{t} 입문|실전 {t}|{t} 심화 과정",
     "사이버 보안|컴퓨터 네트워크|전자 공학|파이썬|웹 개발|데이터베이스와 SQL|데이터 분석|머신 러닝|통계학|사진|드로잉|영화 제작|기타|음악 이론|보컬|회계|마케팅|프로젝트 관리|"
     "영어 회화|학술적 글쓰기|번역|영양학|응급 처치|요가", "첫걸음|기초 다지기|도구 익히기|예제로 배우기|나만의 프로젝트|오류 찾기|함께 작업하기|다음 단계",
     "핵심 개념|차근차근|예제 풀이|자주 하는 실수|뒷이야기", "읽을거리|요약과 용어", "퀴즈", "직접 해 보기",
     "{t}, 쉬운 말로 배우고 바로 실습합니다.|단원마다 자신의 결과물을 완성합니다.|컴퓨터와 일주일에 한 시간, 호기심이면 충분합니다.",
     "{c}에서 {t} 강의를 합니다.|퇴근 후에 공부합니다. {c}.|{c}에 삽니다. {t} 때문에 왔습니다.",
     "딱 필요했던 강의|명확하고 알찬 구성|추천합니다|예제가 실무에서 나온 것이라 좋습니다.|3주 만에 끝냈고 매일 쓰고 있습니다.|질문에 당일 답변이 옵니다.|"
     "지금까지 본 설명 중 최고입니다.", "좋지만 아쉬움|내용은 탄탄하지만 중반이 깁니다.|연습 문제가 더 있으면 좋겠습니다.",
     "저와는 맞지 않음|초보자에게는 너무 빠릅니다.|몇몇 영상의 소리가 작습니다."},
    {"hi", "{t}: शुरुआत से|{t}: अभ्यास के साथ|{t}: उन्नत स्तर",
     "साइबर सुरक्षा|कंप्यूटर नेटवर्क|इलेक्ट्रॉनिकी|पाइथन|वेब विकास|डेटाबेस और SQL|डेटा विश्लेषण|"
     "मशीन लर्निंग|सांख्यिकी|फ़ोटोग्राफ़ी|चित्रकला|फ़िल्म निर्माण|गिटार|संगीत सिद्धांत|गायन|लेखांकन|विपणन|"
     "परियोजना प्रबंधन|अंग्रेज़ी बातचीत|शैक्षणिक लेखन|अनुवाद|पोषण|प्राथमिक उपचार|योग",
     "पहले कदम|बुनियाद|औज़ार|उदाहरणों से सीखना|अपनी परियोजना|गलतियाँ ढूँढना|मिलकर काम करना|आगे की राह",
     "मुख्य विचार|कदम दर कदम|पूरा उदाहरण|आम गलतियाँ|पर्दे के पीछे", "पठन सामग्री|सारांश और शब्दावली",
     "अपनी जाँच करें", "अब आपकी बारी",
     "{t}, सरल भाषा में और तुरंत अभ्यास के साथ।|हर खंड के अंत में आपका अपना काम।|"
     "एक कंप्यूटर, सप्ताह में एक घंटा और जिज्ञासा काफ़ी है।",
     "{c} में {t} पढ़ाना मेरा पेशा है।|शाम को पढ़ाई, {c}।|{c} से। यहाँ {t} के लिए।",
     "बिल्कुल यही चाहिए था|स्पष्ट और संतुलित|समय वसूल|उदाहरण असली काम से लिए गए हैं।|"
     "तीन सप्ताह में पूरा किया, रोज़ काम आता है।|सवालों का जवाब उसी दिन मिलता है।|"
     "अब तक की सबसे अच्छी व्याख्या।",
     "अच्छा, पर कमियाँ हैं|सामग्री ठोस है, बीच का भाग लंबा है।|और अभ्यास होते तो बेहतर था।",
     "मेरे लिए नहीं|नए सीखने वालों के लिए बहुत तेज़।|कुछ वीडियो की आवाज़ साफ़ नहीं है।"},
    {"th", "{t}เบื้องต้น|{t}ภาคปฏิบัติ|{t}ขั้นสูง",
     "ความปลอดภัยไซเบอร์|เครือข่ายคอมพิวเตอร์|อิเล็กทรอนิกส์|ไพทอน|การพัฒนาเว็บ|ฐานข้อมูล|"
     "การวิเคราะห์ข้อมูล|การเรียนรู้ของเครื่อง|สถิติ|การถ่ายภาพ|การวาดเส้น|การทำภาพยนตร์|กีตาร์|ทฤษฎีดนตรี|"
     "การขับร้อง|การบัญชี|การตลาด|การบริหารโครงการ|สนทนาภาษาอังกฤษ|การเขียนเชิงวิชาการ|การแปล|โภชนาการ|"
     "การปฐมพยาบาล|โยคะ",
     "ก้าวแรก|พื้นฐาน|เครื่องมือ|เรียนรู้จากตัวอย่าง|โครงงานของคุณ|หาข้อผิดพลาด|ทำงานร่วมกัน|ก้าวต่อไป",
     "แนวคิดหลัก|ทีละขั้น|ตัวอย่างเต็ม|ข้อผิดพลาดที่พบบ่อย|เบื้องหลัง", "เอกสารอ่าน|สรุปและคำศัพท์",
     "ทดสอบความรู้", "ถึงตาคุณ",
     "เรียน{t}ด้วยภาษาง่าย ๆ และลงมือทำทันที|ทุกหน่วยจบด้วยผลงานของคุณเอง|มีคอมพิวเตอร์ "
     "เวลาสัปดาห์ละชั่วโมง และความอยากรู้ก็พอ",
     "สอน{t}ที่{c}|เรียนหลังเลิกงาน อยู่{c}|มาจาก{c} เริ่มจากวิชา{t}",
     "ตรงกับที่ต้องการ|ชัดเจนเข้าใจง่าย|คุ้มค่า|ตัวอย่างมาจากงานจริง|เรียนจบในสามสัปดาห์ ใช้ได้ทุกวัน|"
     "ตอบคำถามภายในวันเดียว|อธิบายดีที่สุดเท่าที่เคยเรียน",
     "ดี แต่ยังขาดบางส่วน|เนื้อหาแน่น แต่ช่วงกลางยาวไป|อยากให้มีแบบฝึกหัดมากกว่านี้",
     "ไม่เหมาะกับฉัน|เร็วเกินไปสำหรับผู้เริ่มต้น|เสียงบางวิดีโอเบามาก"},
    {"vi", "{t} cơ bản|{t} thực hành|{t} nâng cao",
     "An ninh mạng|Mạng máy tính|Điện tử|Python|Phát triển web|Cơ sở dữ liệu và SQL|Phân tích dữ liệu|"
     "Học máy|Thống kê|Nhiếp ảnh|Hội họa|Làm phim|Đàn ghi-ta|Nhạc lý|Thanh nhạc|Kế toán|Tiếp thị|"
     "Quản lý dự án|Giao tiếp tiếng Anh|Viết học thuật|Dịch thuật|Dinh dưỡng|Sơ cứu|Yoga",
     "Những bước đầu|Nền tảng|Công cụ|Học qua ví dụ|Dự án của bạn|Tìm lỗi|Làm việc nhóm|Đi tiếp thế nào",
     "Ý chính|Từng bước một|Ví dụ trọn vẹn|Lỗi thường gặp|Hậu trường", "Tài liệu đọc|Tóm tắt và thuật ngữ",
     "Kiểm tra kiến thức", "Đến lượt bạn",
     "{t}: giải thích dễ hiểu và thực hành ngay.|Mỗi chương kết thúc bằng một sản phẩm của bạn.|"
     "Chỉ cần máy tính, mỗi tuần một giờ và sự tò mò.",
     "Tôi dạy ở {c}. Chuyên môn: {t}.|Học buổi tối, {c}.|Đến từ {c}. Bắt đầu với {t}.",
     "Đúng thứ tôi cần|Rõ ràng, vừa sức|Rất đáng học|Ví dụ lấy từ công việc thật.|"
     "Học xong trong ba tuần, dùng mỗi ngày.|Câu hỏi được trả lời trong ngày.|"
     "Lời giải thích hay nhất tôi từng gặp.",
     "Tốt nhưng còn thiếu|Nội dung chắc, phần giữa hơi dài.|Giá mà có thêm bài tập.",
     "Không hợp với tôi|Quá nhanh cho người mới.|Âm thanh vài video khó nghe."},
    {"mi", "{t}: taumata tuatahi|{t}: taumata tuarua|{t}: taumata tuatoru",
     "Haumarutanga ā-ipurangi|Whatunga rorohiko|Tāhiko|Python|Waihanga paetukutuku|Pātengi raraunga|"
     "Tātari raraunga|Ako-ā-mīhini|Tauanga|Whakaahua|Tā pikitia|Hanga kiriata|Rakuraku|Ariā puoro|Waiata|"
     "Kaute|Whakatairanga|Whakahaere kaupapa|Kōrero Ingarihi|Tuhituhi mātauranga|Whakamāori|Kai hauora|"
     "Whakaora whāwhai|Yoga",
     "Ngā hīkoi tuatahi|Te tūāpapa|Ngā taputapu|Ngā tauira|Tāu ake mahi|Te kimi hapa|Te mahi tahi|"
     "Ka ahu ki hea", "Ngā whakaaro matua|He hīkoi, he hīkoi|He tauira|Ngā hapa|Kei muri i te ārai",
     "Hei pānui|Whakarāpopototanga", "Whakamātauria", "Māu ināianei",
     "{t}: he māmā te whakamārama, ka mahia tonutia.|Ka oti tāu ake mahi i ia wāhanga.|"
     "He rorohiko, he hāora i te wiki, he hiahia ki te ako.",
     "He kaiako i {c}: {t}.|Ka ako i te pō, {c}.|Nō {c}. I tīmata i te {t}.",
     "Ka pai rawa|He mārama|Tino pai|Nō te mahi tūturu ngā tauira.|E toru wiki, kua oti.|"
     "Ka whakautua wawetia ngā pātai.|Koinei te whakamārama pai katoa.",
     "He pai|He pai ngā kōrero, he roa a waenganui.|Me nui ake ngā mahi whakaharatau.",
     "Kāore i pai ki a au|He tere rawa mō te tīmatanga.|He iti te reo o ētahi ataata."},
};
/* clang-format on */
const size_t seed_languages_count = sizeof(seed_languages) / sizeof(*seed_languages);

const struct seed_language *seed_language(const char *tag)
{
    for (size_t i = 0; i < seed_languages_count; i++)
        if (strcmp(seed_languages[i].tag, tag) == 0)
            return &seed_languages[i];
    return NULL;
}

size_t seed_words_count(const char *list)
{
    size_t n = 1;
    for (const char *at = list; (at = strchr(at, '|')); at++)
        n++;
    return n;
}

struct seed_span seed_word(const char *list, size_t index)
{
    for (; index > 0; index--)
        list = strchr(list, '|') + 1;
    return (struct seed_span){list, strcspn(list, "|")};
}
